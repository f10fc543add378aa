"""The README's code runs, and its layout is the tree."""

import re
from pathlib import Path

import uno_jax as uno

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_python_blocks_run():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert "optax.chain(uno.orthogonalize(), optax.adam(1e-3))" in blocks[0]
    assert names["metrics"].keys() >= {"retain_loss", "cosine"}


def test_the_layout_lists_every_module_and_nothing_else():
    section = README.split("## Layout")[1].split("\n## ")[0]
    listed = set(re.findall(r"^ {4}(\S+\.py|\S+/)", section, re.MULTILINE))
    present = {
        f"{folder.name}/{path.name}" + ("/" if path.is_dir() else "")
        for folder in (ROOT / "uno_jax", ROOT / "experiments", ROOT / "benchmarks")
        for path in folder.iterdir()
        if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").exists())
    } - {f"{name}/__init__.py" for name in ("uno_jax", "experiments", "benchmarks")}
    present = {name for name in present if "/_" not in name}
    assert listed == present


def test_the_methods_table_lists_every_method_with_its_cost():
    section = README.split("## The methods")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `([\w-]+)`.*\| ([^|]+) \|$", section, re.MULTILINE))
    assert rows.keys() == uno.methods.METHODS.keys()
    for name, cost in rows.items():
        method = uno.methods.METHODS[name]
        numbers = [int(n) for n in re.findall(r"\d+", cost)]
        assert numbers == [method.gradients] + [method.products] * bool(method.products)


def test_modules_stay_short():
    long = [
        str(path.relative_to(ROOT))
        for folder in ("uno_jax", "experiments", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if len(path.read_text().splitlines()) >= 300
    ]
    assert not long
