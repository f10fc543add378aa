import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import uno_jax as uno


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(st.integers(0, 1000), st.sampled_from([(1,), (0, 3)]))
def test_equals_the_formula_in_float64(seed, forgotten):
    logits = np.random.default_rng(seed).normal(size=(20, 6))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    q = p.mean(0)
    t = np.array([0.0 if k in forgotten else 1 / (6 - len(forgotten)) for k in range(6)])
    expected = (q * np.log((q + 1e-8) / (t + 1e-8))).sum()
    got = uno.losses.hat_divergence(jnp.asarray(logits), forgotten)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_is_zero_at_uniform_over_the_kept_and_takes_bfloat16():
    logits = jnp.where(jnp.arange(10) == 1, -1e9, 0.0)[None].astype(jnp.bfloat16)
    value = uno.losses.hat_divergence(logits, 1)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, 0.0, atol=1e-6)


def test_composes_with_a_sampler():
    loss_fn = uno.losses.hat_loss(
        lambda x: x @ jnp.eye(3), lambda p, s, k: p + s * jax.random.normal(k, (50, 3)), 1
    )
    params = jnp.array([0.0, 3.0, 0.0])
    key = jax.random.key(0)
    before, grads = jax.value_and_grad(loss_fn)(params, 0.1, key)
    assert loss_fn(params - 0.5 * grads, 0.1, key) < before
    assert grads[1] > 0


@pytest.mark.parametrize("forgotten", [10, -1, range(10)])
def test_classes_out_of_range(forgotten):
    with pytest.raises(ValueError, match="forgotten: expected some, not all, of the classes"):
        uno.losses.hat_divergence(jnp.zeros((2, 10)), forgotten)
