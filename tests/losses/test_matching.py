import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import uno_jax as uno
from tests.transforms.problems import flat, mlp_params

SIZES = (3, 5, 2)


def outputs_fn(params, batch, key):
    del key
    return jnp.tanh(batch @ params[0]["w"] + params[0]["b"]) @ params[1]["w"] + params[1]["b"]


@hypothesis.settings(max_examples=8, deadline=None)
@hypothesis.given(st.integers(0, 1000), st.sampled_from(["bernoulli", "gaussian"]))
def test_products_agree_with_an_explicit_jacobian(seed, family):
    family = getattr(uno.losses, family)()
    params, batch = (
        mlp_params(seed, SIZES),
        jnp.asarray(np.random.default_rng(seed).normal(size=(6, 3)), jnp.float32),
    )
    term = uno.losses.anchor(outputs_fn, params, family)
    vector = mlp_params(seed + 1, SIZES)
    got = uno.losses.curvature(term, params, batch, jax.random.key(0))(vector)

    theta, unravel = ravel_pytree(params)
    jacobian = jax.jacobian(lambda t: outputs_fn(unravel(t), batch, None))(theta)
    outputs = outputs_fn(params, batch, None)
    weighted = family.fisher(outputs, jnp.einsum("nkp,p->nk", jacobian, ravel_pytree(vector)[0]))
    expected = jnp.einsum("nkp,nk->p", jacobian, weighted) / 6
    np.testing.assert_allclose(flat(got), expected, rtol=1e-4, atol=1e-5)


def test_the_anchor_is_flat_at_the_original_and_its_curvature_is_its_hessian():
    params = mlp_params(0, SIZES)
    batch = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
    term = uno.losses.anchor(outputs_fn, params, uno.losses.bernoulli())
    key = jax.random.key(0)
    gradient = jax.grad(term.loss_fn)
    np.testing.assert_allclose(flat(gradient(params, batch, key)), 0, atol=1e-7)
    vector = mlp_params(1, SIZES)
    _, expected = jax.jvp(lambda p: gradient(p, batch, key), (params,), (vector,))
    got = uno.losses.curvature(term, params, batch, key)(vector)
    np.testing.assert_allclose(flat(got), flat(expected), rtol=1e-3, atol=1e-5)


def test_targets_carry_no_gradient_and_see_the_same_noise():
    term = uno.losses.match(
        lambda p, batch, key: p * batch + jax.random.normal(key, batch.shape),
        lambda batch, key: jax.random.normal(key, batch.shape),
        uno.losses.gaussian(),
    )
    batch = jnp.ones((4, 2))
    loss, gradient = jax.value_and_grad(term.loss_fn)(jnp.asarray(2.0), batch, jax.random.key(0))
    np.testing.assert_allclose((loss, gradient), (4.0, 4.0), rtol=1e-5)
    with pytest.raises(ValueError, match="weight: expected a number of at least 0"):
        uno.losses.match(None, None, uno.losses.gaussian(), weight=-1.0)
