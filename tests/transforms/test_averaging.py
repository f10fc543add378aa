import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from tests.transforms.problems import flat, random_tree

DECAY = 0.7


def by_hand(params, updates):
    """The published recursion, in float64."""
    average = params
    for count, update in enumerate(updates):
        params = params + update
        decay = min(DECAY, (1 + count) / (10 + count))
        average = decay * average + (1 - decay) * params
    return average


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_equals_its_recursion_and_passes_updates_on(dtype):
    params = random_tree(0, dtype)
    steps = [random_tree(seed, dtype, scale=0.1) for seed in range(1, 31)]
    tx = uno.transforms.average_params(DECAY)
    state, moving, exact, wide = tx.init(params), params, [], flat(params)
    for step in steps:
        updates, state = tx.update(step, state, moving, unrelated=1)
        chex.assert_trees_all_equal(updates, step)
        exact.append(flat(optax.apply_updates(moving, step)) - flat(moving))
        moving = optax.apply_updates(moving, step)
    chex.assert_trees_all_equal_shapes_and_dtypes(state.average, params)
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(
        flat(state.average), by_hand(wide, exact), atol=8 * eps * np.abs(wide).max()
    )
    assert int(state.count) == len(steps)


def test_the_average_forgets_where_it_began():
    tx = uno.transforms.average_params(0.999)
    state = tx.init(jnp.full(3, 1e3))
    for _ in range(100):
        _, state = tx.update(jnp.zeros(3), state, jnp.ones(3))
    assert float(state.average[0]) < 1.01


def test_last_in_a_chain_it_averages_what_is_applied():
    params = jnp.array([1.0, -1.0])
    tx = optax.chain(optax.sgd(0.5), uno.transforms.average_params(0.0))
    updates, state = jax.jit(tx.update)(jnp.ones(2), tx.init(params), params)
    np.testing.assert_allclose(
        optax.tree.get(state, "average"), optax.apply_updates(params, updates)
    )


def test_masked_it_averages_the_visible_part_alone():
    params = random_tree(0)
    mask = {"dense": {"kernel": True, "bias": False}, "nothing": None, "scalar": True, "empty": ()}
    tx = optax.masked(uno.transforms.average_params(0.0), mask)
    updates = jax.tree.map(jnp.ones_like, params)
    result, state = tx.update(updates, tx.init(params), params)
    chex.assert_trees_all_equal(result, updates)
    average = state.inner_state.average
    np.testing.assert_allclose(average["dense"]["kernel"], params["dense"]["kernel"] + 1)
    assert isinstance(average["dense"]["bias"], optax.MaskedNode)


def test_sharded_as_in_closed_form_and_one_trace():
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    params, ones = jax.device_put((jnp.arange(16.0), jnp.ones(16)), sharding)
    tx = uno.transforms.average_params(DECAY)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def update(updates, state, params):
        return tx.update(updates, state, params)

    state = jax.jit(tx.init)(params)
    for _ in range(3):
        _, state = update(ones, state, params)
        assert state.average.sharding.is_equivalent_to(sharding, 1)
    kept = 0.1 * (2 / 11) * (3 / 12)
    np.testing.assert_allclose(state.average, np.arange(16) + 1 - kept, rtol=1e-6)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"decay: expected a number in \[0, 1\), got 1"):
        uno.transforms.average_params(1)
    tx = uno.transforms.average_params()
    with pytest.raises(ValueError, match="expected params in update"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
