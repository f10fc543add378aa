import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import uno_jax as uno

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


CASES = {
    "bernoulli": (uno.losses.bernoulli(), normal(3, 4), normal(3, 4)),
    "gaussian": (uno.losses.gaussian(0.5), normal(3, 4), normal(3, 4)),
    "diagonal_gaussian": (
        uno.losses.diagonal_gaussian(),
        (normal(3, 2), normal(3, 2)),
        (normal(3, 2), normal(3, 2)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_divergence_is_zero_only_at_the_target(name):
    family, target, other = CASES[name]
    np.testing.assert_allclose(family.divergence(target, target), 0, atol=1e-6)
    assert (family.divergence(target, other) > 1e-3).all()
    assert family.divergence(target, other).shape == (3,)


@pytest.mark.parametrize("name", CASES)
def test_fisher_is_the_hessian_at_the_target(name):
    family, target, tangent = CASES[name]
    gradient = jax.grad(lambda o: family.divergence(target, o).sum())
    _, hessian_product = jax.jvp(gradient, (target,), (tangent,))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        family.fisher(target, tangent),
        hessian_product,
    )


def test_divergences_are_kl_divergences():
    t, p = jax.nn.sigmoid(CASES["bernoulli"][1]), jax.nn.sigmoid(CASES["bernoulli"][2])
    expected = [
        stats.entropy([a, 1 - a], [b, 1 - b]) for a, b in zip(t.ravel(), p.ravel(), strict=True)
    ]
    family, target, logits = CASES["bernoulli"]
    np.testing.assert_allclose(
        family.divergence(target, logits), np.reshape(expected, t.shape).sum(1), rtol=1e-4
    )
    mean, log_variance = normal(5, 3), normal(5, 3)
    zero = jnp.zeros((5, 3))
    from uno_jax import models

    np.testing.assert_allclose(
        uno.losses.diagonal_gaussian().divergence((mean, log_variance), (zero, zero)),
        models.gaussian_kl(mean, log_variance),
        rtol=1e-5,
    )


def test_a_scale_must_be_positive():
    with pytest.raises(ValueError, match="scale: expected a positive number, got 0"):
        uno.losses.gaussian(0)
