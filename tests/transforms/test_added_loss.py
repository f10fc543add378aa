import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from tests.transforms.problems import flat, random_tree


def quadratic(params, model_state, key):
    noise = jax.random.normal(key, ())
    return (
        model_state
        * noise
        * sum(jnp.sum(leaf.astype(jnp.float32) ** 2) for leaf in jax.tree.leaves(params))
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_adds_the_gradient_of_its_loss_once_traced(dtype):
    u, params = random_tree(0, dtype), random_tree(1, dtype)
    tx = optax.chain(uno.surgery(), uno.add_loss(quadratic, 0.3), optax.sgd(1.0))
    update = jax.jit(chex.assert_max_traces(tx.update, n=1))
    state = tx.init(params)
    f = random_tree(2, dtype)
    for seed in (5, 6):
        key = jax.random.key(seed)
        got, state = update(u, state, params, forget_grads=f, model_state=2.0, key=key)
    noise = float(jax.random.normal(key, ()))
    expected = -(flat(uno.transforms.project_out(u, f)) + 0.3 * 2.0 * noise * 2.0 * flat(params))
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(flat(got), expected, atol=16 * eps)
    np.testing.assert_allclose(
        optax.tree.get(state, "value"), 2 * noise * (flat(params) ** 2).sum(), rtol=8 * eps
    )


def test_masked_and_sharded():
    u, params = random_tree(0), random_tree(1)
    mask = {"dense": {"kernel": True, "bias": False}, "nothing": None, "scalar": True, "empty": ()}
    tx = optax.masked(uno.add_loss(quadratic), mask, mask_compatible_extra_args=True)
    got, _ = tx.update(u, tx.init(params), params, model_state=1.0, key=jax.random.key(0))
    np.testing.assert_array_equal(got["dense"]["bias"], u["dense"]["bias"])
    noise = float(jax.random.normal(jax.random.key(0), ()))
    np.testing.assert_allclose(got["scalar"], u["scalar"] + 2 * noise * params["scalar"], rtol=1e-5)

    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    values = jax.device_put(jnp.arange(16.0), sharded)
    tx = uno.add_loss(lambda p, m, k: jnp.sum(p**2))
    got, _ = jax.jit(lambda v: tx.update(v, tx.init(v), v, model_state=None, key=None))(values)
    np.testing.assert_allclose(got, 3 * np.arange(16.0))


def test_mistakes_are_named():
    tx = uno.add_loss(quadratic)
    with pytest.raises(ValueError, match="expected params in update"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), model_state=1.0, key=jax.random.key(0))
    with pytest.raises(TypeError, match="model_state"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))
    with pytest.raises(ValueError, match="the gradient of loss_fn does not match updates"):
        tx.update(
            jnp.ones(3), tx.init(jnp.ones(2)), jnp.ones(2), model_state=1.0, key=jax.random.key(0)
        )
