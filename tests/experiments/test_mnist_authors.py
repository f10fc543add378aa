"""The authors' protocol on the published weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from experiments import mnist_authors, mnist_authors_report, mnist_table, published
from uno_jax import data, models

HAT, UNO, CONTROL = "retain descent + hat", "UNO", mnist_authors.CONTROL


@pytest.fixture(scope="module")
def tiny(reference_dir, tmp_path_factory):
    options = mnist_table.Options(
        reference=reference_dir,
        out=tmp_path_factory.mktemp("authors"),
        protocol="authors",
        data="mnist5k",
        rows=(HAT, UNO, CONTROL),
        most_seeds=2,
        max_steps=5,
        judge_steps=10,
        samples=300,
        workers=0,
    )
    return options, {line["what ran"]: line for line in mnist_table.main(options)}


def test_what_is_published_as_uno_is_retain_descent_with_the_hat(tiny):
    _, lines = tiny
    assert (
        lines[HAT]["steps, published"] == "2.7 (0.4583)"
        and lines[HAT]["inside"]["published"] is not None
    )
    # On the published weights the guide is below 2 % after one to three updates.
    assert lines[HAT]["never"] == 0 and 1 <= lines[HAT]["steps"] <= 4
    # UNO itself is published nowhere, and is not there after five.
    assert lines[UNO]["steps, published"] == "" and lines[UNO]["never"] == 2
    assert lines[CONTROL]["published as"] == "hat"
    assert lines[CONTROL]["compared"] is None and lines[UNO]["compared"]["seeds"] == 2


def test_the_page_has_three_columns_and_the_rules(tiny):
    options, _ = tiny
    page = (options.out / "authors.md").read_text()
    for words in ("authors' code", "before the update", "530 steps", "136.5", "last checkpoint"):
        assert words in page
    row = next(line for line in page.splitlines() if line.startswith(f"| {HAT} |"))
    assert (
        "2.7 (0.4583)" in row and "2.7 (0.5)" in row and "2.4 to 3.0" in row and "2.3 to 3.1" in row
    )
    rows = json.loads((options.out / "authors.json").read_text())["rows"]
    assert [len(row["runs"]) for row in rows] == [2, 2, 2]
    seeds = [[run["seed"] for run in row["runs"]] for row in rows]
    assert seeds == [[100, 101]] * 3


def test_a_step_counts_before_its_update_and_moves_statistics_by_three_passes(reference_dir):
    vae = models.MnistVAE()
    original = published.load_vae(reference_dir / "mnist_vae.npz")
    guide, _ = published.load_guide(reference_dir / "mnist_classifier.npz")
    row = next(row for row in mnist_authors.ROWS if row.name == CONTROL)
    tx, step = mnist_authors.make_step(vae, guide, row, 1)
    state = uno.create_state(
        original.params, tx, jax.random.key(0), model_state=original.model_state
    )
    train = data.load("mnist5k", "train")
    images = data.flatten(train)
    retain = {"image": images[train.labels != 1][:128]}
    forget = {"image": images[train.labels == 1][:128]}
    latents = jax.random.normal(jax.random.key(1), (128, 2))
    after, fraction = jax.jit(step)(state, retain, forget, latents)

    def statistics(images_or_latents, before, **how):
        variables = {"params": original.params, "batch_stats": before}
        _, changed = vae.apply(
            variables, images_or_latents, train=True, mutable=["batch_stats"], **how
        )
        return changed["batch_stats"]

    # The encoder's do not depend on the noise: forget, then retain, and the latents pass it by.
    expected = original.model_state
    for batch in (forget, retain):
        expected = {**expected, **statistics(batch["image"], expected, method="encode")}
    np.testing.assert_allclose(
        after.model_state["encoder"]["norm"]["mean"], expected["encoder"]["norm"]["mean"], rtol=1e-4
    )
    decoded, _ = vae.apply(
        {"params": original.params, "batch_stats": original.model_state},
        latents,
        train=True,
        mutable=["batch_stats"],
        method="decode",
    )
    counted = jnp.mean(guide(vae.picture(decoded)).argmax(axis=-1) == 1)
    np.testing.assert_allclose(fraction, counted)
    assert fraction > 0.02
    # The decoder sees two batches with noise, and the latents last, with a weight of a tenth.
    old, new = (s["decoder"]["norm"]["mean"] for s in (original.model_state, after.model_state))
    zero = jax.tree.map(jnp.zeros_like, original.model_state)
    last = statistics(latents, zero, method="decode")["decoder"]["norm"]["mean"]
    batches = (new - last) / 0.9
    assert np.abs(batches - old).max() < 0.3 * np.abs(old).max()
    assert not np.allclose(new, batches, rtol=1e-3)


def test_the_interval_and_the_paired_difference():
    low, high = mnist_authors_report.interval(2.7, 0.5)
    # 2.262 standard errors of ten seeds.
    np.testing.assert_allclose([low, high], [2.7 - 0.3577, 2.7 + 0.3577], atol=1e-3)
    runs = [{"seed": s, "stop_step": 10 + s} for s in range(8)]
    control = [{"seed": s, "stop_step": 10} for s in range(6)]
    compared = mnist_authors.paired(runs, control)
    assert compared["seeds"] == 6 and compared["difference"] == 2.5 and compared["p"] < 0.1
    assert mnist_authors.paired(control, control)["p"] == 1.0


def test_every_published_figure_stands_beside_what_ran(reference_dir):
    labels = [label for row in mnist_authors.ROWS for label in row.published]
    assert sorted(labels) == sorted(
        ["a", "ad", "s", "o", "os", "hat", "shat", "ohat", "ohatshat", "sa", "sp"]
    )
    for row in mnist_authors.ROWS:
        tx = row.tx(uno.add_loss(lambda params, model_state, key: 0.0 * params.sum()))
        assert isinstance(tx, optax.GradientTransformation)
