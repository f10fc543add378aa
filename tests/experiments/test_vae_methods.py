"""Every method and protocol on the published VAE."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from experiments import published, redirect
from experiments.vae_methods import Protocol, prepare
from uno_jax import data, models


@pytest.fixture(scope="module")
def model(reference_dir):
    train = data.load("mnist5k", "train")
    split = data.split_by_label(train, lambda label: label == 1)
    images = train.images.reshape(-1, 784).astype(np.float32) / np.float32(255)
    original = published.load_vae(reference_dir / "mnist_vae.npz")
    return redirect.digits(models.MnistVAE(), original, train, split, images)


def take(job, steps=1):
    state = job.start(jax.random.key(0))
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(job.step, n=1))
    for batches in itertools.islice(zip(*job.streams(0), strict=False), steps):
        state, metrics = step(state, *batches)
    return state, metrics


def bound(model, state):
    test = data.load("mnist5k", "test")
    images = test.images[test.labels != 1].reshape(-1, 784) / np.float32(255)
    values = models.negative_elbo(
        model.vae, state.params, state.model_state, images, jax.random.key(0)
    )
    return float(jnp.mean(values))


@pytest.mark.parametrize(
    ("name", "norm"),
    [*((name, "batch") for name in uno.methods.UNCONDITIONAL), ("uno-s", "running")],
)
def test_every_method_takes_finite_steps(model, name, norm):
    method = uno.methods.get_method(name)
    state, metrics = take(prepare(method, Protocol(norm=norm), model), 2)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.params, metrics)))
    moves_statistics = norm == "batch" and not method.matches
    same = chex.assert_trees_all_equal
    if moves_statistics:
        with pytest.raises(AssertionError):
            same(state.model_state, model.original.model_state)
    else:
        same(state.model_state, model.original.model_state)
    if name == "recalibration":
        same(state.params, model.original.params)


def test_the_redirect_moves_the_output_layer_alone(model):
    state, metrics = take(prepare(uno.methods.get_method("redirect"), Protocol(), model))
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, model.original.params)
    assert changed["decoder"].pop("logits") == {"kernel": True, "bias": True}
    assert not any(jax.tree.leaves(changed))
    assert metrics["objective_after"] < metrics["objective"]


def test_a_warm_adam_damages_less_than_a_cold_one(model):
    method = uno.methods.get_method("retain-descent")
    before = bound(model, model.original)
    cold, warm = (
        bound(model, take(prepare(method, Protocol(norm="running", warm=warm), model))[0]) - before
        for warm in (False, True)
    )
    # One cold step of 1e-3 on every weight costs tens of nats, a warm one next to nothing.
    assert cold > 20 and abs(warm) < 2


def test_ascent_destroys_the_model(model):
    after, _ = take(prepare(uno.methods.get_method("ascent"), Protocol(norm="running"), model), 30)
    surgery, _ = take(
        prepare(uno.methods.get_method("surgery"), Protocol(norm="running"), model), 30
    )
    assert bound(model, after) > 3 * bound(model, model.original)
    assert bound(model, surgery) < 1.5 * bound(model, model.original)


def test_the_hat_pushes_the_guide_and_needs_one(model, reference_dir):
    method = uno.methods.get_method("retain-descent")
    guide, _ = published.load_guide(reference_dir / "mnist_classifier.npz")
    z = jax.random.normal(jax.random.key(1), (2000, 2))

    def fraction(state):
        images = models.decode(model.vae, state.params, state.model_state, z)
        return float(jnp.mean(guide(images).argmax(-1) == 1))

    plain, hat = (
        fraction(take(prepare(method, Protocol(hat=h), model, guide, 1), 4)[0]) for h in (0.0, 1e3)
    )
    assert hat < 0.5 * plain
    with pytest.raises(ValueError, match="hat: expected a classifier to guide it, got None"):
        prepare(method, Protocol(hat=1.0), model)


def test_selective_amnesia_draws_noise_and_replays(model):
    job = prepare(uno.methods.get_method("selective-amnesia"), Protocol(), model)
    retain, forget = job.streams(3)
    plain = prepare(uno.methods.get_method("surgery"), Protocol(), model).streams(3)
    batch, real = next(retain), next(plain[0])
    np.testing.assert_array_equal(batch["label"], real["label"])
    assert not np.array_equal(batch["image"], real["image"])
    assert np.abs(batch["image"] - real["image"]).mean() < 0.15
    np.testing.assert_array_equal(next(forget)["image"], next(plain[1])["image"])


def test_warm_adam_is_in_the_state(model):
    method = uno.methods.get_method("surgery")
    state = prepare(method, Protocol(warm=True), model).start(jax.random.key(0))
    assert optax.tree.norm(optax.tree.get(state.opt_state, "nu")) > 0
