import jax
import jax.numpy as jnp
import numpy as np

import uno_jax as uno

KEY = jax.random.key(0)


def loss_fn(params, batch, key):
    """Each label's own mean, with noise so that the keys are seen."""
    noise = jax.random.normal(key, batch["image"].shape)
    return jnp.mean((params[batch["label"]] - batch["image"] - noise) ** 2)


def test_exchange_images_count_under_the_forgotten_label():
    params = jnp.array([0.5, -0.5, 1.0])
    retain = {"image": jnp.array([1.0, 2.0]), "label": jnp.array([0, 2])}
    exchange = {"image": jnp.array([7.0, 8.0, 9.0]), "label": jnp.array([2, 2, 2])}
    fn = uno.losses.exchange_loss(loss_fn, forgotten=1)
    value, slope = jax.value_and_grad(fn)(params, {**retain, "exchange": exchange}, KEY)
    own, other = jax.random.split(KEY)
    shown = {**exchange, "label": jnp.array([1, 1, 1])}
    expected = loss_fn(params, retain, own) + loss_fn(params, shown, other)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    residual = params[1] - exchange["image"] - jax.random.normal(other, (3,))
    np.testing.assert_allclose(slope[1], 2 * residual.mean(), rtol=1e-5)


def outputs_fn(params, noisy, times, labels):
    return params[labels][:, None] * noisy + times[:, None]


def test_relabelling_asks_for_the_exchange_label_and_leaves_it_alone():
    noisy, times = jnp.array([[1.0], [3.0]]), jnp.array([0.1, 0.2])
    fn = uno.losses.relabelling_loss(
        lambda batch, key: (batch, times), outputs_fn, forgotten=0, exchange=2
    )
    params = jnp.array([2.0, 5.0, -1.0])
    value, slope = jax.value_and_grad(fn)(params, noisy, KEY)
    np.testing.assert_allclose(value, 9.0 * np.mean([1.0, 9.0]), rtol=1e-6)
    np.testing.assert_allclose(slope, [2 * 3.0 * np.mean([1.0, 9.0]), 0, 0], rtol=1e-6)


def test_a_bfloat16_model_is_compared_in_float32():
    noisy = jnp.ones((1000, 1), jnp.bfloat16)
    fn = uno.losses.relabelling_loss(
        lambda batch, key: (batch, jnp.zeros(len(batch), jnp.bfloat16)),
        outputs_fn,
        forgotten=0,
        exchange=1,
    )
    value = fn(jnp.array([1.0, 1.125], jnp.bfloat16), noisy, KEY)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, 0.125**2, rtol=1e-6)
