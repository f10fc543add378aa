import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from tests.transforms.problems import flat, random_tree

DTYPES = st.sampled_from([jnp.float32, jnp.bfloat16])


def squares(seed):
    return jax.tree.map(lambda x: x**2, random_tree(seed))


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(st.integers(0, 2**31 - 3), DTYPES, st.sampled_from([0.5, 1.0]))
def test_scaling_equals_the_formula(seed, dtype, power):
    u, v = random_tree(seed, dtype), squares(seed + 1)
    tx = uno.transforms.scale_by_second_moment(v, damping=0.1, power=power)
    got, _ = tx.update(u, tx.init(u))
    chex.assert_trees_all_equal_shapes_and_dtypes(got, u)
    expected = flat(u) / (flat(v) + 0.01 * flat(v).mean()) ** power
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(flat(got), expected, rtol=16 * eps)
    tx = uno.transforms.scale_by_second_moment(v, damping=0.1, power=power, root_mean_square=1e-3)
    got, _ = tx.update(u, tx.init(u))
    np.testing.assert_allclose(np.sqrt(np.mean(flat(got) ** 2)), 1e-3, rtol=16 * eps)


def test_zero_updates_and_a_zero_metric_stay_defined():
    u = random_tree(0)
    zero = jax.tree.map(jnp.zeros_like, u)
    for moment, updates in ((squares(1), zero), (zero, u)):
        tx = uno.transforms.scale_by_second_moment(moment, root_mean_square=1.0)
        np.testing.assert_array_equal(flat(tx.update(updates, tx.init(u))[0]), 0)


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(st.integers(0, 2**31 - 4), DTYPES)
def test_the_pull_is_the_gradient_of_its_penalty(seed, dtype):
    start, params, u = (random_tree(seed + i, dtype) for i in range(3))
    fisher = squares(seed + 3)
    tx = uno.transforms.pull_to_start(fisher, 2.0)
    got, _ = tx.update(u, tx.init(start), params)
    expected = flat(u) + 2.0 * flat(fisher) * (flat(params) - flat(start))
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(flat(got), expected, rtol=4 * eps, atol=4 * eps)
    same, _ = tx.update(u, tx.init(start), start)
    chex.assert_trees_all_equal(same, u)


@pytest.mark.parametrize(
    "build",
    [
        uno.transforms.scale_by_second_moment,
        lambda moment: uno.transforms.pull_to_start(moment, 1.0),
    ],
    ids=["scale", "pull"],
)
def test_masked_traced_once_sharded_and_checked(build):
    u, moment = random_tree(0), squares(1)
    mask = {"dense": {"kernel": True, "bias": False}, "nothing": None, "scalar": True, "empty": ()}
    tx = optax.chain(optax.masked(build(moment), mask), optax.sgd(1.0))
    update = jax.jit(chex.assert_max_traces(tx.update, n=1))
    state = tx.init(u)
    for _ in range(2):
        got, state = update(u, state, u)
    np.testing.assert_array_equal(got["dense"]["bias"], -u["dense"]["bias"])

    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    values, other = jnp.arange(1.0, 17.0), jnp.ones(16)
    expected, _ = (tx := build(values)).update(values, tx.init(other), values)
    spread = jax.device_put(values, sharded)
    got, _ = jax.jit(tx.update)(spread, tx.init(jax.device_put(other, sharded)), spread)
    np.testing.assert_allclose(got, expected, rtol=1e-6)

    with pytest.raises(ValueError, match="second_moment does not match updates"):
        tx = build(jnp.ones(3))
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))


def test_static_mistakes():
    with pytest.raises(ValueError, match="damping: expected a number of at least 0"):
        uno.transforms.scale_by_second_moment(jnp.ones(1), damping=-1)
    with pytest.raises(ValueError, match="power: expected a positive number"):
        uno.transforms.scale_by_second_moment(jnp.ones(1), power=0)
    with pytest.raises(ValueError, match="weight: expected a number of at least 0"):
        uno.transforms.pull_to_start(jnp.ones(1), -1.0)
    with pytest.raises(ValueError, match="expected params in update"):
        tx = uno.transforms.pull_to_start(jnp.ones(1), 1.0)
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
