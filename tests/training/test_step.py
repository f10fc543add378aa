import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from tests.transforms.problems import flat, mlp_batch, mlp_loss, mlp_params

SIZES = (3, 8, 2)


def loss_fn(params, batch, key):
    x, y = batch
    return mlp_loss(params, (x + 0.1 * jax.random.normal(key, x.shape), y))


def quiet_loss(params, batch, key):
    del key
    return mlp_loss(params, batch)


def problem(tx, count=16):
    params = mlp_params(0, SIZES)
    state = uno.create_state(params, tx, jax.random.key(0))
    return state, mlp_batch(1, count, SIZES), mlp_batch(2, count, SIZES)


CHAINS = {
    "uno": (lambda: optax.chain(uno.orthogonalize(10.0), optax.adam(1e-2)), "retain"),
    "surgery": (lambda: optax.chain(uno.surgery(), optax.adam(1e-2)), "retain"),
    "surgery-ascent": (
        lambda: optax.chain(uno.orthogonalize_against(), optax.scale(-1.0), optax.adam(1e-2)),
        "forget",
    ),
    "plain": (lambda: optax.adam(1e-2), "retain"),
}


@pytest.mark.parametrize("name", CHAINS)
def test_one_trace_for_many_steps_and_all_metrics(name):
    build, descend = CHAINS[name]
    tx = build()
    state, retain, forget = problem(tx)
    step = jax.jit(
        chex.assert_max_traces(uno.make_unlearning_step(loss_fn, tx, descend=descend), n=1)
    )
    for _ in range(5):
        state, metrics = step(state, retain, forget)
    assert state.step == 5
    expected = {"retain_loss", "forget_loss", "cosine", "retain_norm", "forget_norm"}
    if name == "uno":
        expected |= {"penalty_norm", "penalty_ratio"}
        np.testing.assert_array_equal(
            metrics["penalty_ratio"], optax.tree.get(state.opt_state, "penalty_ratio")
        )
    assert set(metrics) == expected
    assert all(np.isfinite(float(v)) for v in metrics.values())


@pytest.mark.parametrize("name", CHAINS)
def test_the_network_is_traced_once_for_gradients_and_products_of_both_batches(name):
    build, descend = CHAINS[name]
    tx = build()
    state, *batches = problem(tx)
    once = chex.assert_max_traces(loss_fn, n=1)
    step = jax.jit(uno.make_unlearning_step(once, tx, descend=descend))
    expected = jax.jit(uno.make_unlearning_step(loss_fn, tx, descend=descend))
    got, _ = step(state, *batches)
    again, _ = expected(state, *batches)
    chex.assert_trees_all_equal(got.params, again.params)


@pytest.mark.parametrize("name", CHAINS)
def test_sharded_over_eight_devices_equals_one_device(name):
    build, descend = CHAINS[name]
    tx = build()
    state, retain, forget = problem(tx)
    step = jax.jit(uno.make_unlearning_step(loss_fn, tx, descend=descend))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    over_data = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    alone, spread = state, jax.device_put(state, everywhere)
    for _ in range(3):
        alone, expected = step(alone, retain, forget)
        spread, got = step(spread, *jax.device_put((retain, forget), over_data))
    assert len(spread.step.sharding.device_set) == 8
    np.testing.assert_allclose(flat(spread.params), flat(alone.params), atol=2e-6)
    for key, value in expected.items():
        np.testing.assert_allclose(got[key], value, rtol=1e-4, atol=1e-6)


def test_pmap_averages_both_gradients_before_the_projection():
    tx = optax.chain(uno.surgery(), optax.sgd(0.1))
    state, retain, forget = problem(tx)
    whole, _ = uno.make_unlearning_step(quiet_loss, tx)(state, retain, forget)
    split = jax.tree.map(lambda x: x.reshape(8, 2, *x.shape[1:]), (retain, forget))
    mapped = jax.pmap(
        uno.make_unlearning_step(quiet_loss, tx, axis_name="data"),
        axis_name="data",
        in_axes=(None, 0, 0),
    )
    got, _ = mapped(state, *split)
    first = jax.tree.map(lambda x: x[0], got.params)
    np.testing.assert_allclose(flat(first), flat(whole.params), atol=1e-6)
    # Averaging projected gradients instead would be another direction.
    per_device = jax.vmap(
        lambda r, f: uno.transforms.project_out(
            jax.grad(mlp_loss)(state.params, r), jax.grad(mlp_loss)(state.params, f)
        )
    )(*split)
    shortcut = jax.tree.map(lambda p, g: p - 0.1 * g.mean(0), state.params, per_device)
    assert np.abs(flat(shortcut) - flat(whole.params)).max() > 1e-4


def test_noise_depends_on_the_step_and_not_on_the_history():
    tx = optax.sgd(0.0)
    state, retain, forget = problem(tx)
    step = jax.jit(uno.make_unlearning_step(loss_fn, tx))
    _, first = step(state, retain, forget)
    second_state, _ = step(state, retain, forget)
    _, second = step(second_state, retain, forget)
    resumed = uno.create_state(state.params, tx, state.key).replace(step=jnp.asarray(1))
    _, again = step(resumed, retain, forget)
    assert first["retain_loss"] != second["retain_loss"]
    assert second["retain_loss"] == again["retain_loss"]


@pytest.mark.parametrize(
    ("source", "expected"), [("both", 11.0), ("retain", 1.0), ("forget", 10.0), ("none", 0.0)]
)
def test_which_pass_updates_the_model_state(source, expected):
    def counting_loss(params, model_state, batch, key):
        del key
        return jnp.sum(params * batch), model_state + batch

    tx = optax.sgd(0.1)
    step = uno.make_unlearning_step(
        counting_loss, tx, has_model_state=True, model_state_from=source
    )
    state = uno.create_state(jnp.ones(()), tx, jax.random.key(0), model_state=jnp.zeros(()))
    state, _ = step(state, jnp.asarray(1.0), jnp.asarray(10.0))
    assert state.model_state == expected


def test_a_separate_forget_loss():
    tx = uno.surgery()
    step = uno.make_unlearning_step(
        lambda p, batch, key: p[0] * batch, tx, forget_loss_fn=lambda p, batch, key: p[1] * batch
    )
    state = uno.create_state(jnp.array([1.0, 2.0]), tx, jax.random.key(0))
    _, metrics = step(state, 3.0, 5.0)
    assert metrics["retain_loss"] == 3.0
    assert metrics["forget_loss"] == 10.0
    assert metrics["cosine"] == 0.0


def test_masked_uno_runs_in_the_step():
    params = {"a": jnp.array([2.0, 3.0]), "b": jnp.array(1.0)}
    tx = optax.chain(
        optax.masked(
            uno.orthogonalize(2.0), {"a": True, "b": False}, mask_compatible_extra_args=True
        ),
        optax.sgd(0.1),
    )

    def loss(p, batch, key):
        return jnp.sum((p["a"] * p["b"] - batch) ** 2)

    state = uno.create_state(params, tx, jax.random.key(0))
    new, _ = jax.jit(uno.make_unlearning_step(loss, tx))(state, 1.0, 5.0)
    assert np.all(np.isfinite(flat(new.params)))
    assert not np.array_equal(new.params["a"], params["a"])


def test_static_mistakes_are_named():
    with pytest.raises(ValueError, match=r"descend: expected one of \('retain', .*got 'r'"):
        uno.make_unlearning_step(loss_fn, optax.sgd(1.0), descend="r")
    with pytest.raises(ValueError, match="model_state_from: expected one of .* got 'x'"):
        uno.make_unlearning_step(loss_fn, optax.sgd(1.0), model_state_from="x")
