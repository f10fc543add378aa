"""Eight forced host devices for every test, and the way to the real data."""

import atexit
import gc
import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # A step of the CelebA VAE compiles in 0.6 of the time; another version may not know these.
    os.environ["XLA_FLAGS"] += (
        " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    )
# Most programs here run a few times: compiled without the passes that make them fast, and
# once for all workers and for the processes that tests start.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if "UNO_TEST_CACHE" not in os.environ:
    os.environ["UNO_TEST_CACHE"] = tempfile.mkdtemp(prefix="uno_jax-tests-")
    atexit.register(shutil.rmtree, os.environ["UNO_TEST_CACHE"], ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["UNO_TEST_CACHE"]
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

import chex
import hypothesis
import pytest

# The same examples on every run: a red test means a change, not a draw.
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.load_profile("same")

# Tracing makes many small objects that stay: looking through them takes a tenth of the time.
gc.freeze()
gc.set_threshold(100_000, 50, 100)

SHARED = Path(__file__).parents[2] / "shared" / "data"

# Modules whose tests or fixtures take minutes, of each of two workers. A worker begins with a
# half of all tests, in order, and in the end takes from the other's tail: of a module that is
# cut through there, both make the fixtures.
DEAR = (
    ("test_mnist_table.py", "test_mnist.py", "experiments/test_dit.py", "test_processes.py"),
    ("test_celeba.py", "test_mnist_audit.py", "test_faults.py"),
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Puts the dear modules first, of each half of the tests."""

    def of(modules):
        return [item for item in items if item.path.as_posix().endswith(modules)]

    first, second = of(DEAR[0]), of(DEAR[1])
    dear = {id(item) for item in first + second}
    others = [item for item in items if id(item) not in dear]
    cut = max(0, len(items) // 2 - len(first))
    items[:] = first + others[:cut] + second + others[cut:]


def _shared(name: str) -> Path:
    path = Path(os.environ.get("UNO_SHARED_DATA", SHARED)) / name
    if not path.exists():
        pytest.skip(f"needs {name} of the shared data, not found in {path.parent}")
    return path


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """The folder of published weights and golden vectors."""
    return _shared("reference")


@pytest.fixture
def tfds_dir(monkeypatch) -> Path:
    """The folder of prepared TFDS data sets, also set as TFDS_DATA_DIR."""
    path = _shared("tfds")
    monkeypatch.setenv("TFDS_DATA_DIR", str(path))
    return path


@pytest.fixture(autouse=True)
def _count_traces_per_test():
    # chex counts by name and line, across tests.
    chex.clear_trace_counter()
