"""UNO's default keeps models whose loss is a mean; its published form destroys them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import uno_jax as uno
from tests.transforms.problems import mlp_params

BATCH = 64
FORGOTTEN = 3


def dense(params, x):
    for layer in params[:-1]:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def flow_loss(params, batch, key):
    """Flow matching without labels: the velocity from noise to a picture."""
    time_key, noise_key = jax.random.split(key)
    images = batch["image"]
    times = jax.random.uniform(time_key, (len(images), 1))
    noise = jax.random.normal(noise_key, images.shape)
    noisy = (1 - times) * noise + times * images
    velocity = dense(params, jnp.concatenate([noisy, times], axis=1))
    return jnp.mean((velocity - (images - noise)) ** 2)


def denoising_loss(params, batch, key):
    """The noise in a picture, its label known."""
    time_key, noise_key = jax.random.split(key)
    images = batch["image"]
    angle = jax.random.uniform(time_key, (len(images), 1)) * (0.5 * jnp.pi)
    noise = jax.random.normal(noise_key, images.shape)
    noisy = jnp.cos(angle) * images + jnp.sin(angle) * noise
    given = jnp.concatenate([noisy, angle, jax.nn.one_hot(batch["label"], 10)], axis=1)
    return jnp.mean((dense(params, given) - noise) ** 2)


def vae_loss(params, batch, key):
    """The negative evidence lower bound, a mean over examples and pixels."""
    images = 0.5 * (batch["image"] + 1)
    mean, log_variance = jnp.split(dense(params["encoder"], images), 2, axis=1)
    latents = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
    logits = dense(params["decoder"], latents)
    error = optax.sigmoid_binary_cross_entropy(logits, images).sum(axis=1)
    divergence = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance).sum(axis=1)
    return jnp.mean(error + divergence) / images.shape[1]


MODELS = {
    "flow": (flow_loss, lambda: mlp_params(0, (65, 128, 128, 64))),
    "denoiser": (denoising_loss, lambda: mlp_params(0, (75, 128, 128, 64))),
    "vae": (
        vae_loss,
        lambda: {
            "encoder": mlp_params(0, (64, 128, 128, 16)),
            "decoder": mlp_params(1, (8, 128, 128, 64)),
        },
    ),
}


def digits():
    """Pictures in [-1, 1] with labels, of both sides, and held-out retained ones."""
    pictures, labels = load_digits(return_X_y=True)
    data = {"image": pictures.astype(np.float32) / 8 - 1, "label": labels}
    rows = np.arange(len(labels)) % 4 == 0
    kept = labels != FORGOTTEN

    def side(chosen):
        return {name: jnp.asarray(array[chosen]) for name, array in data.items()}

    return side(~rows & kept), side(~rows & ~kept), side(rows & kept)


def draw(data, key):
    rows = jax.random.randint(key, (BATCH,), 0, len(data["label"]))
    return jax.tree.map(lambda array: array[rows], data)


@pytest.mark.parametrize("name", MODELS)
def test_fifty_steps_of_the_default_leave_a_model_of_a_mean_loss_what_it_was(name):
    loss_fn, make = MODELS[name]
    retain, forget, held_out = digits()
    everything = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), retain, forget)
    adam = optax.adam(2e-3)
    training_step = uno.make_training_step(loss_fn, adam)

    @jax.jit
    def train():
        def body(state, key):
            return training_step(state, draw(everything, key))[0], None

        state = uno.create_state(make(), adam, jax.random.key(0))
        return jax.lax.scan(body, state, jax.random.split(jax.random.key(1), 3000))[0].params

    def held_out_loss(params):
        keys = jax.random.split(jax.random.key(2), 20)
        return jax.jit(lambda: jnp.mean(jax.lax.map(lambda k: loss_fn(params, held_out, k), keys)))

    params = train()

    def after(direction):
        tx = optax.chain(direction, optax.adam(1e-3))
        step = jax.jit(uno.make_unlearning_step(loss_fn, tx))
        state = uno.create_state(params, tx, jax.random.key(3))
        for key in jax.random.split(jax.random.key(4), 50):
            keys = jax.random.split(key)
            state, metrics = step(state, draw(retain, keys[0]), draw(forget, keys[1]))
        return float(held_out_loss(state.params)()), metrics

    control, _ = after(optax.identity())
    default, metrics = after(uno.orthogonalize())
    published, unbounded = after(uno.orthogonalize(max_ratio=None))
    before = float(held_out_loss(params)())
    print(f"{name}: {before:.3f} before, {control:.3f} {default:.3f} {published:.3f}")
    assert default <= 1.1 * control
    # The published form fails, so this test can.
    assert published > 1.1 * control
    assert metrics["penalty_ratio"] > 1 and unbounded["penalty_ratio"] > 1
