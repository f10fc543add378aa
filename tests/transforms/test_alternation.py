import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from tests.transforms.problems import flat, mlp_problem, random_tree


def test_each_sees_only_its_own_turns():
    tx = uno.alternate(optax.trace(0.5), optax.scale(-3.0))
    alone = optax.trace(0.5)
    state, alone_state = tx.init(jnp.zeros(2)), alone.init(jnp.zeros(2))
    for turn in range(6):
        updates = jnp.array([1.0, -2.0]) * (turn + 1)
        got, state = tx.update(updates, state)
        if turn % 2:
            expected = -3.0 * updates
        else:
            expected, alone_state = alone.update(updates, alone_state)
        np.testing.assert_allclose(got, expected)
    assert state.count == 6


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_uno_s_is_uno_on_odd_steps_and_surgery_on_even_ones_in_one_trace(dtype):
    params, retain, forget = mlp_problem(0, dtype=dtype)
    retain_grad_fn, forget_grad_fn = jax.grad(retain), jax.grad(forget)
    tx = uno.alternate(uno.orthogonalize(3.0), uno.surgery())

    @jax.jit
    @chex.assert_max_traces(n=1)
    def update(state):
        return tx.update(
            retain_grad_fn(params),
            state,
            params,
            retain_grad_fn=retain_grad_fn,
            forget_grad_fn=forget_grad_fn,
            forget_grads=forget_grad_fn(params),
        )

    r, f = retain_grad_fn(params), forget_grad_fn(params)
    odd = uno.orthogonalize(3.0)
    expected = [
        odd.update(
            r,
            odd.init(params),
            params,
            retain_grad_fn=retain_grad_fn,
            forget_grad_fn=forget_grad_fn,
        )[0],
        uno.transforms.project_out(r, f),
    ]
    state = tx.init(params)
    for turn in range(4):
        got, state = update(state)
        chex.assert_trees_all_equal_dtypes(got, params)
        reference = flat(expected[turn % 2])
        np.testing.assert_allclose(
            flat(got), reference, atol=8 * float(jnp.finfo(dtype).eps) * np.linalg.norm(reference)
        )
    assert np.isfinite(optax.tree.get(state, "retain_norm"))


def test_masked_and_with_none_leaves():
    u = random_tree(0)
    mask = {"dense": {"kernel": True, "bias": False}, "nothing": None, "scalar": True, "empty": ()}
    tx = optax.masked(
        uno.alternate(uno.ascend(), optax.identity()), mask, mask_compatible_extra_args=True
    )
    f = random_tree(1)
    state = tx.init(u)
    first, state = tx.update(u, state, u, forget_grads=f)
    np.testing.assert_array_equal(first["dense"]["kernel"], -f["dense"]["kernel"])
    np.testing.assert_array_equal(first["dense"]["bias"], u["dense"]["bias"])
    second, _ = tx.update(u, state, u, forget_grads=f)
    chex.assert_trees_all_equal(second, u)


def test_on_eight_devices():
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    u, f = jax.device_put((jnp.arange(16.0), jnp.ones(16)), sharded)
    tx = uno.alternate(uno.surgery(), optax.identity())
    got, _ = jax.jit(lambda u, s: tx.update(u, s, u, forget_grads=f))(u, tx.init(u))
    np.testing.assert_allclose(got, np.arange(16.0) - 7.5, atol=1e-5)


def test_nothing_to_alternate():
    with pytest.raises(ValueError, match="expected at least one transformation, got none"):
        uno.alternate()
