import jax
import jax.numpy as jnp
import numpy as np
import pytest

import uno_jax as uno

KEY = jax.random.key(0)
ORIGINAL = jnp.array([1.0, 4.0, 0.5])


def outputs_fn(params, noisy, times, labels):
    return params[labels][:, None] * noisy + times[:, None]


def erasing(guidance, noisy_fn=None):
    points = jnp.array([[1.0], [3.0]]), jnp.array([0.1, 0.2])
    return uno.losses.erasing_loss(
        noisy_fn or (lambda params, batch, key: points),
        outputs_fn,
        ORIGINAL,
        forgotten=1,
        null_label=2,
        guidance=guidance,
    )


@pytest.mark.parametrize("guidance", [1.0, 0.3])
def test_negative_guidance_is_what_it_asks_for(guidance):
    params = jnp.array([9.0, 2.0, -7.0])
    target = 0.5 - guidance * (4.0 - 0.5)
    value, slope = jax.value_and_grad(erasing(guidance))(params, None, KEY)
    np.testing.assert_allclose(value, (2.0 - target) ** 2 * np.mean([1.0, 9.0]), rtol=1e-5)
    # The other labels are those of the original, and carry no gradient.
    np.testing.assert_allclose(slope, [0, 2 * (2.0 - target) * np.mean([1.0, 9.0]), 0], rtol=1e-5)
    np.testing.assert_allclose(
        erasing(guidance)(params.at[1].set(target), None, KEY), 0.0, atol=1e-10
    )


def test_points_drawn_from_the_model_in_training_carry_no_gradient():
    def noisy_fn(params, batch, key):
        return jnp.full((2, 1), params[1]), jnp.zeros(2)

    params = jnp.array([9.0, 2.0, -7.0])
    fixed = erasing(1.0, lambda p, batch, key: (jnp.full((2, 1), 2.0), jnp.zeros(2)))
    np.testing.assert_allclose(
        jax.grad(erasing(1.0, noisy_fn))(params, None, KEY), jax.grad(fixed)(params, None, KEY)
    )


def test_a_guidance_that_is_not_positive():
    with pytest.raises(ValueError, match=r"guidance: expected a positive number, got 0\.0"):
        erasing(0.0)
