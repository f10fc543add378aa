import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from uno_jax import checkpoints


def make_state(scale=1.0, seed=0, tx=None):
    tx = tx or optax.chain(uno.orthogonalize(), optax.adam(1e-3))
    params = {"w": scale * jnp.arange(6.0).reshape(2, 3), "h": jnp.ones(2, jnp.bfloat16), "n": None}
    return uno.create_state(params, tx, jax.random.key(seed), model_state={"mean": jnp.ones(2)})


def test_round_trip_of_a_whole_state(tmp_path):
    state = make_state(3.0, seed=7).replace(step=jnp.asarray(5, jnp.int32))
    checkpoints.save(tmp_path / "a", state)
    restored = checkpoints.restore(tmp_path / "a", make_state())
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    np.testing.assert_array_equal(restored.params["w"], state.params["w"])
    assert restored.params["h"].dtype == jnp.bfloat16
    assert restored.step == 5
    assert jnp.array_equal(jax.random.normal(restored.key), jax.random.normal(state.key))


def test_saving_again_replaces(tmp_path):
    for scale in (1.0, 2.0):
        checkpoints.save(tmp_path / "a", make_state(scale))
    restored = checkpoints.restore(tmp_path / "a", make_state())
    np.testing.assert_array_equal(restored.params["w"], make_state(2.0).params["w"])


def test_restores_to_the_sharding_of_the_template(tmp_path):
    checkpoints.save(tmp_path / "a", {"w": jnp.arange(16.0)})
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    restored = checkpoints.restore(tmp_path / "a", {"w": jax.device_put(jnp.zeros(16), sharding)})
    assert restored["w"].sharding == sharding
    np.testing.assert_array_equal(restored["w"], np.arange(16.0))


def test_a_missing_or_wrong_checkpoint_is_named(tmp_path):
    assert not checkpoints.exists(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="expected one at .*found none"):
        checkpoints.restore(tmp_path / "a", make_state())
    checkpoints.save(tmp_path / "a", make_state())
    other = make_state()
    other.params["w"] = jnp.zeros((3, 3))
    with pytest.raises(ValueError, match=r"expected shape \(3, 3\) at 'params/w', got \(2, 3\)"):
        checkpoints.restore(tmp_path / "a", other)
    with pytest.raises(ValueError, match="another model or optimizer"):
        checkpoints.restore(tmp_path / "a", make_state(tx=optax.sgd(1.0)))
