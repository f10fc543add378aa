import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno


def outputs_fn(params, batch, key):
    del key
    return batch @ params["w"] + params["b"]


def problem(tx):
    rng = np.random.default_rng(0)
    original = {"w": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32), "b": jnp.zeros(3)}
    # Retained inputs span two directions of four, forgotten ones another.
    retain = jnp.asarray(rng.normal(size=(32, 2)) @ np.eye(4)[:2], jnp.float32)
    forget = jnp.asarray(rng.normal(size=(16, 1)) * np.eye(4)[3], jnp.float32)
    step = uno.make_matching_step(
        uno.losses.anchor(outputs_fn, original, uno.losses.gaussian()),
        uno.losses.match(
            outputs_fn, lambda batch, key: jnp.tile(3.0 * batch[:, 3:], 3), uno.losses.gaussian()
        ),
        tx,
    )
    return step, uno.create_state(original, tx, jax.random.key(0)), retain, forget


def chain():
    return uno.methods.get_method("redirect").build(None)


def test_redirects_and_holds_and_never_rises():
    step, state, retain, forget = problem(chain())
    step = jax.jit(chex.assert_max_traces(step, n=1))
    original = state.params
    for _ in range(3):
        state, metrics = step(state, retain, forget)
        assert metrics["objective_after"] <= metrics["objective"]
    expected = jnp.tile(3.0 * forget[:, 3:], 3)
    np.testing.assert_allclose(outputs_fn(state.params, forget, None), expected, atol=0.1)
    np.testing.assert_allclose(
        outputs_fn(state.params, retain, None), outputs_fn(original, retain, None), atol=0.05
    )


def test_the_retain_term_alone_stays_exactly_where_it_is():
    tx = chain()
    step, state, retain, forget = problem(tx)
    step = uno.make_matching_step(
        uno.losses.anchor(outputs_fn, state.params, uno.losses.gaussian()),
        uno.losses.anchor(outputs_fn, state.params, uno.losses.gaussian()),
        tx,
    )
    new, metrics = step(state, retain, forget)
    chex.assert_trees_all_equal(new.params, state.params)
    assert metrics["objective"] == 0


def test_the_second_half_is_what_the_line_search_sees():
    step, state, retain, forget = problem(optax.sgd(0.0))
    _, base = step(state, retain, forget)
    _, metrics = step(state, retain, forget.at[8:].set(0.0))
    assert metrics["forget_loss"] == base["forget_loss"]
    assert metrics["objective"] != base["objective"]


def test_sharded_over_eight_devices_equals_one():
    step, state, retain, forget = problem(chain())
    expected, _ = jax.jit(step)(state, retain, forget)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    got, _ = jax.jit(step)(
        jax.device_put(state, everywhere), *jax.device_put((retain, forget), rows)
    )
    np.testing.assert_allclose(got.params["w"], expected.params["w"], atol=1e-4)


def test_masked_trains_the_visible_part_alone():
    tx = optax.masked(chain(), {"w": True, "b": False}, mask_compatible_extra_args=True)
    tx = optax.chain(tx, optax.masked(optax.set_to_zero(), {"w": False, "b": True}))
    step, state, retain, forget = problem(tx)
    new, _ = jax.jit(step)(state, retain, forget)
    np.testing.assert_array_equal(new.params["b"], state.params["b"])
    # With the bias frozen nothing is shared: retained outputs do not move at all.
    np.testing.assert_allclose(
        outputs_fn(new.params, retain, None), outputs_fn(state.params, retain, None), atol=1e-5
    )
    assert not np.array_equal(new.params["w"], state.params["w"])


def test_a_batch_that_cannot_be_halved():
    step, state, retain, _ = problem(chain())
    with pytest.raises(ValueError, match="expected arrays of one length of at least 2"):
        step(state, retain, jnp.ones((1, 4)))
