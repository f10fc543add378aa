from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import uno_jax as uno
from tests import digits
from uno_jax import diffusion, trees
from uno_jax.generative.vae import VAE
from uno_jax.methods.diffusion import exchange_labels, label_tables
from uno_jax.methods.recipes import FAMILIES, recipe_for
from uno_jax.training.examples import read_examples

PIXELS = 16


class Linear(NamedTuple):
    """A model of the user's own: what it draws is one picture."""

    def loss_fn(self, params, batch, key):
        noise = 0.1 * jax.random.normal(key, batch["image"].shape)
        return jnp.mean((params["mean"] + noise - batch["image"]) ** 2)


def vae():
    def encode(params, x):
        return x @ params["in"], jnp.full((len(x), 2), -2.0)

    key = jax.random.key(0)
    params = {
        "in": 0.1 * jax.random.normal(key, (PIXELS, 2)),
        "out": 0.1 * jax.random.normal(key, (2, PIXELS)),
        "steps": jnp.zeros((), jnp.int32),
    }
    return VAE(encode, lambda params, z: z @ params["out"], "gaussian"), params


def pictures(count, level):
    rng = np.random.default_rng(count)
    return rng.normal(level, 0.1, (count, PIXELS)).astype(np.float32)


def two_steps(job):
    state = uno.training.copy_state(job.start(jax.random.key(0)))
    streams = job.streams(0)
    step = jax.jit(job.step)
    for _ in range(2):
        state, metrics = step(state, *map(next, streams))
    assert all(np.isfinite(value) for value in jax.tree.leaves(metrics))
    return job.finish(state)


def moved(before, after):
    """The names of the leaves that changed."""
    before, after = (jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (before, after))
    pairs = zip(before, after, strict=True)
    return {trees.path_name(p) for (p, a), (_, b) in pairs if not np.array_equal(a, b)}


GRADIENT = tuple(FAMILIES["a model with a loss"]())


@pytest.mark.parametrize("name", GRADIENT)
def test_gradient_methods_run_on_a_vae(name):
    model, params = vae()
    build = recipe_for(name, model).build
    job = build(model, params, pictures(40, 1.0), pictures(20, -1.0), batch_size=8, steps=2)
    after = two_steps(job)
    assert moved(params, after) == {"in", "out"}
    assert "of 8 examples a step" in job.cost
    some = build(
        model, params, pictures(40, 1.0), pictures(20, -1.0), batch_size=8, trainable="out"
    )
    assert moved(params, two_steps(some)) == {"out"}
    shapes = {leaf.shape for leaf in jax.tree.leaves(some.start(jax.random.key(0)).opt_state)}
    assert params["in"].shape not in shapes


@pytest.mark.parametrize(
    ("name", "labelled"),
    [*((name, True) for name in GRADIENT), ("uno-s", False), ("salun", False)],
)
def test_gradient_methods_run_on_a_diffusion_model(name, labelled):
    params = digits.init(jax.random.key(0), hidden=8)
    data = digits.sides(count=200)
    if not labelled:
        data = {name: side["image"] for name, side in data.items()}
    job = recipe_for(name, digits.MODEL).build(digits.MODEL, params, **data, batch_size=8)
    assert moved(params, two_steps(job))
    with_exchange = labelled and name != "retain-descent"
    assert ("exchange" in next(job.streams(0)[0])) == ("exchange" in job.cost) == with_exchange


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("redirect", {"time", "in", "body/0", "body/1", "out"}),
        ("salun-relabel", None),
        ("esd-x", {"label/table"}),
        ("esd-u", {"time", "in", "body/0", "body/1", "out"}),
    ],
)
def test_methods_of_labels_move_what_they_say(name, expected):
    params = digits.init(jax.random.key(0), hidden=8)
    data = digits.sides(count=200)
    job = recipe_for(name, digits.MODEL).build(digits.MODEL, params, **data, batch_size=8)
    changed = moved(params, two_steps(job))
    assert changed == expected if expected else changed


def test_the_redirect_runs_with_several_labels_and_from_batches():
    images, labels = (array[:300] for array in digits.load())
    gone = np.isin(labels, (3, 8))
    data = {
        side: [{"image": images[rows], "label": labels[rows]}]
        for side, rows in (("retain", ~gone), ("forget", gone))
    }
    params = digits.init(jax.random.key(0), hidden=8)
    job = recipe_for("redirect", digits.MODEL).build(
        digits.MODEL, params, **data, exchange={3: 5, 8: 1}, batch_size=32
    )
    batch = next(job.streams(0)[1])
    pairs = set(zip(batch["shown"].tolist(), batch["asked"].tolist(), strict=True))
    assert pairs == {(3, 5), (8, 1)} and batch["image"].shape == (32, 8, 8, 1)
    assert moved(params, two_steps(job))


def test_a_first_step_of_retain_descent_is_adam_on_the_loss():
    params = {"mean": jnp.zeros(PIXELS)}
    job = recipe_for("retain-descent", Linear()).build(
        Linear(), params, pictures(40, 1.0), pictures(20, -1.0), learning_rate=0.5, batch_size=8
    )
    retain, forget = map(next, job.streams(0))
    state, metrics = job.step(job.start(jax.random.key(0)), retain, forget)
    np.testing.assert_allclose(job.finish(state)["mean"], 0.5, rtol=1e-4)
    # The control does not look at the forget batch, and does not pay for it.
    assert set(metrics) == {"retain_loss"}
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), forget)
    again, _ = job.step(job.start(jax.random.key(0)), retain, broken)
    np.testing.assert_array_equal(again.params["mean"], state.params["mean"])


def test_the_nearest_label_is_the_one_of_the_nearest_mean():
    data = {name: read_examples(side, name) for name, side in digits.sides(3).items()}
    kept = data["retain"].arrays
    gone = data["forget"].arrays["image"].mean(0)
    gaps = {k: np.square(kept["image"][kept["label"] == k].mean(0) - gone).sum() for k in range(10)
            if k != 3}  # fmt: skip
    assert exchange_labels(**data, exchange=None) == {3: min(gaps, key=gaps.get)}


def test_label_tables_are_found_by_what_the_output_depends_on():
    params = digits.init(jax.random.key(0), hidden=8)
    assert label_tables(digits.MODEL, params, digits.SHAPE, 9) == {"label/table"}

    def one_hot(params, noisy, times, labels):
        return noisy + jax.nn.one_hot(labels, 10) @ params["kernel"]

    def numbers(params, noisy, times, labels):
        return noisy * params["a"] + labels[:, None] * params["b"]

    schedule = diffusion.cosine(10)
    for network, params, expected in (
        (one_hot, {"kernel": jnp.ones((10, 2))}, {"kernel"}),
        (numbers, {"a": jnp.ones((2, 2))[0], "b": jnp.ones((1, 2))}, set()),
    ):
        model = diffusion.Diffusion(network, schedule)
        assert label_tables(model, params, (2,), 9) == expected


def test_a_label_without_a_row_is_refused():
    model = digits.MODEL
    params = digits.init(jax.random.key(0), hidden=8)
    data = digits.sides(count=200)
    data["forget"]["label"] = np.full_like(data["forget"]["label"], 12)
    for name in ("redirect", "uno", "salun-relabel", "esd-u"):
        with pytest.raises(ValueError, match="labels below 11, the rows of 'label/table', got 12"):
            recipe_for(name, model).build(model, params, **data)

    def taking(params, noisy, times, labels):
        return noisy * jnp.take(params, labels, axis=0)[:, None, None]

    with pytest.raises(ValueError, match="label: expected labels below 10, .* got 12"):
        label_tables(
            diffusion.Diffusion(taking, diffusion.cosine(10)), jnp.ones((10, 8)), (8, 8, 8), 12
        )


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("redirect-adam", r"VAE can run \(ascent, .*redirect, .*got 'redirect-adam': it is what"),
        ("esd-x", "got 'esd-x': it needs labels"),
        ("selective-amnesia", "it needs a Fisher information"),
        ("fastest", "got 'fastest': no such method"),
    ],
)
def test_a_method_that_a_family_cannot_run_is_refused(method, said):
    with pytest.raises(ValueError, match=said):
        recipe_for(method, vae()[0])


def test_every_method_has_a_recipe_or_a_reason():
    for family, recipes in FAMILIES.items():
        runs = recipes()
        assert set(runs) <= set(uno.methods.METHODS), family
        for name in uno.methods.METHODS.keys() - runs:
            model = {"a VAE": vae()[0], "a diffusion model": digits.MODEL}.get(family, Linear())
            with pytest.raises(ValueError) as error:
                recipe_for(name, model)
            assert "has no recipe" not in str(error.value)


def test_what_is_no_model_is_refused():
    with pytest.raises(ValueError, match="model: expected .*loss_fn.*, got dict"):
        recipe_for("redirect", {})


LABELS = {"retain": {0: 4, 5: 4}, "forget": {3: 4}}


def labelled(side, labels):
    label = np.repeat(list(labels), list(labels.values()))
    images = np.ones((len(label), *digits.SHAPE), np.float32)
    return {"image": images, "label": label}


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("redirect", {"exchange": 3}, r"retained label \(0, 5\) for each forgotten .*\(3\), got 3"),
        ("uno", {"exchange": {4: 0}}, "exchange: expected"),
        ("redirect", {"batch_size": 0}, "batch_size: expected an integer of at least 1, got 0"),
        ("redirect", {"learning_rate": -1.0}, "learning_rate: expected a positive number"),
        ("redirect", {"unlabelled": 2.0}, r"unlabelled: expected a number in \[0, 1\]"),
        ("redirect", {"forgotten_share": 1.0}, "forgotten_share: expected"),
        ("redirect", {"anchor_weight": -1.0}, "anchor_weight: expected"),
        ("redirect", {"trainable": "bodi"}, "trainable: expected 'bodi' to choose some of"),
        ("esd-x", {"conditioning": "adaLN"}, "conditioning: expected 'adaLN' to choose"),
        ("esd-u", {"sampling_steps": 0}, "sampling_steps: expected at least 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(name, change, said):
    data = {side: labelled(side, labels) for side, labels in LABELS.items()}
    params = digits.init(jax.random.key(0), hidden=8)
    with pytest.raises(ValueError, match=said):
        recipe_for(name, digits.MODEL).build(digits.MODEL, params, **data, **change)


@pytest.mark.parametrize("name", ("redirect", "salun-relabel", "esd-u"))
def test_a_method_of_labels_without_labels_is_refused(name):
    data = {side: labelled(side, labels)["image"] for side, labels in LABELS.items()}
    params = digits.init(jax.random.key(0), hidden=8)
    with pytest.raises(ValueError, match=f"{name}: expected data with labels .*method='uno'"):
        recipe_for(name, digits.MODEL).build(digits.MODEL, params, **data)


def test_labels_on_both_sides_are_refused():
    data = {side: labelled(side, {0: 3, 5: 3}) for side in ("retain", "forget")}
    params = digits.init(jax.random.key(0), hidden=8)
    for name in ("redirect", "surgery", "retain-descent", "esd-x"):
        with pytest.raises(ValueError, match="forget: expected labels .*got 0, 5 in both"):
            recipe_for(name, digits.MODEL).build(digits.MODEL, params, **data)


def test_a_model_that_does_not_fit_the_data_is_refused():
    data = {side: labelled(side, labels) for side, labels in LABELS.items()}
    with pytest.raises(ValueError, match=r"model: expected a loss of images of shape \(8, 8, 1\)"):
        recipe_for("redirect", digits.MODEL).build(digits.MODEL, {"in": jnp.ones(2)}, **data)
    without = digits.MODEL._replace(null_label=None)
    with pytest.raises(ValueError, match="esd-x: expected a model with a label for none"):
        recipe_for("esd-x", without).build(without, digits.init(jax.random.key(0), 8), **data)
