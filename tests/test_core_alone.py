"""The core imports jax and optax, quickly, and a missing extra is one line."""

import subprocess
import sys

import pytest


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_core_loads_no_extra_and_little_time():
    code = """
import sys, time
import optax
start = time.perf_counter()
import uno_jax
seconds = time.perf_counter() - start
extras = {"flax", "grain", "orbax", "scipy.linalg", "matplotlib", "tyro", "tensorflow_datasets"}
loaded = sorted(extras & set(sys.modules))
assert not loaded, loaded
assert seconds < 1, seconds
uno_jax.orthogonalize()
"""
    result = run(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("blocked", "module"),
    [
        ("flax", "models"),
        ("grain", "data"),
        ("scipy", "metrics"),
        ("matplotlib", "report"),
        ("orbax", "checkpoints"),
    ],
)
def test_a_missing_extra_is_named(blocked, module):
    code = f"""
import sys
import optax
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
for name in [n for n in sys.modules if n.split(".")[0] == {blocked!r}]:
    del sys.modules[name]
sys.meta_path.insert(0, Block())
import uno_jax.{module}
"""
    result = run(code)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last == (
        f"ImportError: {blocked} is not installed; run: pip install 'uno_jax[experiments]'"
    )
