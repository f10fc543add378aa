"""The README is short, its code and that of the documents runs, and the layout is the tree."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import uno_jax as uno

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
METHODS = (ROOT / "docs" / "methods.md").read_text()


def blocks(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_readme_is_short_and_its_second_block_runs():
    assert len(README.splitlines()) <= 200
    # The first needs a model of the reader's; tests/wheel runs it.
    own, composed = blocks(README)
    assert "uno.forget(model" in own
    assert "optax.chain(uno.orthogonalize(), optax.adam(1e-3))" in composed
    names: dict = {}
    exec(compile(composed, "README.md", "exec"), names)
    assert names["metrics"].keys() >= {"retain_loss", "cosine", "penalty_ratio"}


@pytest.mark.parametrize(
    "name", ["forgetting", "methods", "diffusion", "devices", "checkpoints", "audit"]
)
def test_the_code_of_a_document_runs_behind_that_of_the_readme(name):
    text = (ROOT / "docs" / f"{name}.md").read_text()
    names: dict = {}
    for block in [blocks(README)[1], *blocks(text)]:
        exec(compile(block, f"{name}.md", "exec"), names)
    assert blocks(text)


def test_no_sentence_says_that_the_published_figures_are_not_reproduced():
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("experiments/**/*.md")):
        text = " ".join(page.read_text().split())
        assert "are not reproduced" not in text, page
    assert "experiments/results/mnist_table/authors.md" in README


def test_links_between_the_pages_lead_somewhere():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/results/**/README.md")]
    for page in pages:
        for link in re.findall(r"\]\((?!http|#)([^)#]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.relative_to(ROOT)}: {link}"


def test_the_layout_lists_every_module_and_nothing_else():
    section = (ROOT / "docs" / "layout.md").read_text()
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
    rows = dict(re.findall(r"^\| `([\w-]+)`.*\| ([^|]+) \|$", METHODS, re.MULTILINE))
    assert rows.keys() == uno.methods.METHODS.keys()
    for name, cost in rows.items():
        method = uno.methods.METHODS[name]
        numbers = [int(n) for n in re.findall(r"\d+", cost)]
        assert numbers == [method.gradients] + [method.products] * bool(method.products)


def test_public_names_are_few_and_all_there():
    assert len(uno.__all__) <= 30
    for module in (uno, uno.transforms, uno.losses, uno.training, uno.requests, uno.generative):
        assert sorted(set(module.__all__)) == sorted(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)
    assert (Path(uno.__file__).parent / "py.typed").exists()


def test_the_first_block_is_five_lines_that_name_what_they_take():
    class Bound(SimpleNamespace):
        def method(self, name):
            return {
                "encode": lambda p, x: (x @ p["in"], -4.0 + 0.0 * x @ p["in"]),
                "decode": lambda p, z: np.float32(9) * z @ p["out"],
            }[name]

        def restore(self, params):
            return params

    rng = np.random.default_rng(0)
    params = {"in": np.eye(4, 2, dtype="f"), "out": rng.normal(size=(2, 4)).astype("f")}
    taken = SimpleNamespace(**{name: getattr(uno, name) for name in ("VAE", "forget")})
    taken.from_nnx = lambda vae: Bound(params=params)
    images = rng.uniform(0, 1, (200, 4)).astype("f")
    names = {"vae": None, "kept_images": images, "unwanted_images": images[:50] ** 3}
    block = blocks(README)[0]
    assert len([line for line in block.splitlines() if "import" not in line]) <= 5
    exec(
        compile(block.replace("import uno_jax as uno\n", ""), "README.md", "exec"),
        names | {"uno": taken},
    )
