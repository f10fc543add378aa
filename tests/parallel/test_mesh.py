import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

import uno_jax as uno
from uno_jax import models, parallel


@pytest.mark.parametrize("text", ["", "data", "data=0", "data=-2", "rows=2", "data=2,data=4", "8"])
def test_a_mesh_that_is_none_is_named(text):
    with pytest.raises(ValueError, match="mesh: expected sizes of the axes .* got"):
        parallel.parse_mesh(text)


def test_axes_are_in_one_order_and_free_to_the_compiler():
    mesh = parallel.make_mesh(parallel.parse_mesh("model=2,data=4"))
    assert mesh.axis_names == ("data", "model")
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}
    with pytest.raises(ValueError, match=r"expected 4 devices for \{'data': 4\}, got 8"):
        parallel.make_mesh({"data": 4})


def test_batches_lie_over_data_and_fsdp_and_must_divide():
    mesh = parallel.make_mesh({"data": 2, "fsdp": 2, "model": 2})
    batch = parallel.shard_batch(mesh, {"x": np.ones((8, 3)), "n": np.float32(2)})
    assert batch["x"].sharding.spec == PartitionSpec(("data", "fsdp"))
    assert batch["n"].sharding.is_fully_replicated
    assert batch["x"].addressable_shards[0].data.shape == (2, 3)
    with pytest.raises(ValueError, match="that 4 devices can share, got 6"):
        parallel.shard_batch(mesh, np.ones((6, 3)))
    with pytest.raises(ValueError, match="that 8 devices can share, got 6"):
        parallel.split(np.ones((6, 3)))


def test_large_arrays_lie_along_their_longest_axis_that_fits_and_moments_with_them():
    mesh = parallel.make_mesh({"data": 2, "fsdp": 4})
    params = {
        "wide": jnp.ones((64, 128)),
        "odd": jnp.ones((127, 64)),
        "small": jnp.ones((16, 16)),
        "prime": jnp.ones((127, 67)),
        "none": None,
    }
    state = uno.create_state(params, optax.adam(1e-3), jax.random.key(0))
    shardings = parallel.state_shardings(mesh, state)
    specs = {name: getattr(s, "spec", None) for name, s in shardings.params.items()}
    assert specs == {
        "wide": PartitionSpec(None, "fsdp"),
        "odd": PartitionSpec(None, "fsdp"),
        "small": PartitionSpec(),
        "prime": PartitionSpec(),
        "none": None,
    }
    assert shardings.opt_state[0].mu == shardings.params
    assert shardings.key.spec == shardings.step.spec == PartitionSpec()


def test_rules_decide_by_path_and_must_fit():
    mesh = parallel.make_mesh({"fsdp": 4, "model": 2})
    params = {"a": {"kernel": jnp.ones((8, 6))}, "b": {"kernel": jnp.ones((8, 6))}}
    state = uno.create_state(params, optax.adam(1e-3), jax.random.key(0))
    rules = [("a/kernel$", ("fsdp", "model"))]
    shardings = parallel.state_shardings(mesh, state, rules)
    assert shardings.params["a"]["kernel"].spec == PartitionSpec("fsdp", "model")
    assert shardings.opt_state[0].nu["a"]["kernel"].spec == PartitionSpec("fsdp", "model")
    assert shardings.params["b"]["kernel"].spec == PartitionSpec()
    one_axis = parallel.make_mesh({"fsdp": 8})
    spec = parallel.state_shardings(one_axis, params, rules)["a"]["kernel"].spec
    assert spec == PartitionSpec("fsdp", None)
    for axes, message in (
        (("fsdp",), "expected an entry for each of the 2 axes of 'a/kernel'"),
        (("model", "fsdp"), r"expected axes of 'a/kernel', \(8, 6\), that can be divided"),
    ):
        with pytest.raises(ValueError, match=message):
            parallel.state_shardings(mesh, params, [("a/kernel$", axes)])


def test_the_rules_of_a_dit_find_its_layers_apart_and_stacked():
    model = models.DiT(depth=2)
    arrays = jnp.zeros((1, 8, 8, 1)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), *arrays)["params"]
    stacked = jax.eval_shape(models.stack_blocks, params)
    mesh = parallel.make_mesh({"fsdp": 4, "model": 2})
    apart = parallel.state_shardings(mesh, params, parallel.DIT_RULES)["block_1"]
    together = parallel.state_shardings(mesh, stacked, parallel.DIT_RULES)["blocks"]
    for layer, spec in {
        "qkv": ("fsdp", "model"),
        "mlp_in": ("fsdp", "model"),
        "projection": ("model", "fsdp"),
        "mlp_out": ("model", "fsdp"),
    }.items():
        assert tuple(apart[layer]["kernel"].spec) == spec
        assert tuple(together[layer]["kernel"].spec) == (None, *spec)
    assert tuple(apart["qkv"]["bias"].spec) == ("model",)


def test_a_state_has_buffers_of_its_own_and_comes_back_whole():
    mesh = parallel.make_mesh({"data": 1}, jax.devices()[:1])
    params = {"w": jnp.ones(4)}
    state = uno.create_state(params, optax.sgd(1.0), jax.random.key(3))
    placed = parallel.shard_state(mesh, state)
    jax.jit(lambda s: s, donate_argnums=0)(placed)
    assert not params["w"].is_deleted()
    mesh = parallel.make_mesh({"fsdp": 8})
    whole = parallel.gather(parallel.shard_state(mesh, state, smallest=1))
    assert len(whole.params["w"].sharding.device_set) == 1
    assert jnp.array_equal(jax.random.key_data(whole.key), jax.random.key_data(state.key))


def test_every_device_under_pmap_draws_noise_of_its_own():
    def loss_fn(params, batch, key):
        return jnp.mean(params * batch * jax.random.normal(key, batch.shape))

    tx = optax.sgd(1.0)
    step = parallel.pmap_step(uno.make_training_step(loss_fn, tx, axis_name="data"))
    state = uno.create_state(jnp.ones(()), tx, jax.random.key(0))
    after, metrics = step(parallel.replicate(state), parallel.split(jnp.ones(8)))
    key = jax.random.fold_in(jax.random.key(0), 0)
    drawn = [jax.random.normal(jax.random.fold_in(key, i), (1,))[0] for i in range(8)]
    np.testing.assert_allclose(metrics["loss"], np.mean(drawn), rtol=1e-6)
    assert parallel.unreplicate(after).step == 1
