import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import uno_jax as uno
from tests.transforms.problems import mlp_batch, mlp_loss, mlp_params

SIZES = (3, 8, 2)
METHODS = ("surgery", "surgery-ascent", "ascent", "ascent-descent", "orthogonal-ascent", "salun")


def loss_fn(params, model_state, batch, key):
    x, y = batch
    noisy = (x + 0.1 * jax.random.normal(key, x.shape)).astype(x.dtype)
    return mlp_loss(params["net"], (noisy, y)), model_state + 1


def problem(dtype, tx):
    params, *batches = jax.tree.map(
        lambda leaf: leaf.astype(dtype),
        ({"net": mlp_params(0, SIZES), "none": None}, *(mlp_batch(i, 16, SIZES) for i in (1, 2))),
    )
    return uno.create_state(params, tx, jax.random.key(0), model_state=jnp.zeros(())), *batches


@pytest.mark.parametrize(
    ("dtype", "methods"), [(jnp.float32, METHODS), (jnp.bfloat16, ("surgery", "salun"))]
)
def test_the_gradients_are_traced_once_for_all_and_the_steps_are_the_same(dtype, methods):
    gradients = jax.jit(
        chex.assert_max_traces(uno.training.make_gradients(loss_fn, has_model_state=True), n=1)
    )
    wraps = {(name, False) for name in methods} | {("surgery", True)}
    for name, masked in sorted(wraps):
        row = uno.methods.get_method(name)
        direction = row.direction(uno.methods.Setting())
        if masked:
            direction = optax.masked(direction, {"net": True, "none": None})
        tx = optax.chain(direction, optax.adam(1e-2))
        update = uno.jit_turns(uno.training.make_update(tx, descend=row.descend))
        step = jax.jit(
            uno.make_unlearning_step(loss_fn, tx, has_model_state=True, descend=row.descend)
        )
        expected, *batches = problem(dtype, tx)
        got = uno.training.copy_state(expected)
        for _ in range(3):
            expected, row_expected = step(expected, *batches)
            got, metrics = update(got, gradients(got.replace(opt_state=()), *batches))
        eps = float(jnp.finfo(dtype).eps)
        chex.assert_trees_all_equal_dtypes(got, expected)
        pair = (state.replace(key=None) for state in (got, expected))
        chex.assert_trees_all_close(*pair, rtol=20 * eps, atol=20 * eps)
        chex.assert_trees_all_close(metrics, row_expected, rtol=20 * eps, atol=20 * eps)
        assert got.model_state == 6


def test_on_eight_devices_as_on_one():
    tx = optax.chain(uno.surgery(), optax.adam(1e-2))
    state, *batches = problem(jnp.float32, tx)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    over = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    gradients = jax.jit(uno.training.make_gradients(loss_fn, has_model_state=True))
    update = jax.jit(uno.training.make_update(tx))
    alone, expected = update(state, gradients(state, *batches))
    state, batches = jax.device_put(state, everywhere), jax.device_put(batches, over)
    spread, got = update(state, gradients(state, *batches))
    assert len(spread.step.sharding.device_set) == 8
    chex.assert_trees_all_close((spread.params, got), (alone.params, expected), atol=1e-5)


def test_products_need_the_whole_step():
    tx = optax.chain(uno.orthogonalize(1.0), optax.sgd(0.1))
    state, *batches = problem(jnp.float32, tx)
    found = uno.training.make_gradients(loss_fn, has_model_state=True)(state, *batches)
    with pytest.raises(ValueError, match="gradients alone, got one that takes products"):
        uno.training.make_update(tx)(state, found)
    with pytest.raises(ValueError, match=r"descend: expected one of .* got 'both'"):
        uno.training.make_update(tx, descend="both")
    with pytest.raises(ValueError, match=r"model_state_from: expected one of .* got 'x'"):
        uno.training.make_gradients(loss_fn, model_state_from="x")
