"""Five lines make a model of one's own forget; run from the wheel, outside the checkout."""

import time

import jax
import numpy as np
import pytest
from own_models import LATENTS, digits, plain, with_equinox, with_linen, with_nnx

import uno_jax as uno

FORGOTTEN = 7  # of the retrained plain model, this classifier takes 0.2 % for a 7, but 4 % for a 4
STYLES = {"plain": plain, "nnx": with_nnx, "equinox": with_equinox, "linen": with_linen}


@pytest.fixture(scope="module")
def data():
    return digits(FORGOTTEN)


def forgotten_percent(data, model, params, count=4000):
    z = jax.random.normal(jax.random.key(7), (count, LATENTS))
    pictures = jax.nn.sigmoid(jax.jit(model.decode)(params, z))
    return 100 * float(np.mean(data["classify"](pictures) == FORGOTTEN))


def retained_loss(data, model, params):
    return float(jax.jit(model.loss_fn)(params, {"image": data["held_out"]}, jax.random.key(3)))


def timed(model, params, data, **options):
    """Forgets twice: the second time, programs come out of the compilation cache."""
    sides = {"retain": data["retain"], "forget": data["forget"]}
    for _ in range(2):
        begin = time.perf_counter()
        result = uno.forget(model, params, **sides, progress=False, **options)
        jax.block_until_ready(result.params)
        seconds = time.perf_counter() - begin
    return result, seconds


@pytest.mark.parametrize("style", STYLES)
def test_a_vae_of_ones_own_forgets(style, data):
    model, params, restore, draw, training_seconds = STYLES[style](data["train"])
    kept = jax.tree.map(np.array, params)
    before = forgotten_percent(data, model, params)
    loss = retained_loss(data, model, params)

    result, seconds = timed(model, params, data)
    after = forgotten_percent(data, model, result.params)
    rise = retained_loss(data, model, result.params) / loss - 1
    control = uno.forget(
        model,
        params,
        retain=data["retain"],
        forget=data["forget"],
        method="retain-descent",
        steps=result.steps,
        progress=False,
    )
    of_control = forgotten_percent(data, model, control.params)
    print(
        f"{style}: {before:.1f} % to {after:.2f} % (retain descent {of_control:.1f} %), loss "
        f"{100 * rise:+.1f} %, {result.steps} steps, {seconds:.1f} s of {training_seconds:.1f} s"
    )
    assert after < 2 and after < before / 10
    assert rise < 0.05
    assert not (of_control < 2 and of_control < before / 10)
    assert seconds < training_seconds / 5
    # The caller's arrays are there, and unchanged.
    jax.tree.map(np.testing.assert_array_equal, params, kept)

    # What its owner gets back draws the same.
    z = jax.random.normal(jax.random.key(5), (8, LATENTS))
    np.testing.assert_allclose(
        draw(restore(result.params), z), model.decode(result.params, z), atol=1e-4
    )
