import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from tests.transforms.problems import flat, mlp_batch, mlp_loss, mlp_params

SIZES = (3, 4, 2)


def loss_fn(params, batch, key):
    return mlp_loss(params, batch) + 0.0 * jax.random.normal(key, ())


def batches(count):
    return [mlp_batch(seed, 5, SIZES) for seed in range(count)]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_second_moment_is_the_mean_square(dtype):
    params = mlp_params(0, SIZES, dtype)
    got = uno.training.second_moment(loss_fn, params, batches(6), jax.random.key(0), count=4)
    grads = [flat(jax.grad(mlp_loss)(params, batch)) for batch in batches(4)]
    expected = np.mean(np.square(grads), axis=0)
    np.testing.assert_allclose(flat(got), expected, rtol=8 * float(jnp.finfo(dtype).eps))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(got))


def test_second_moment_with_a_model_state_and_too_few_batches():
    def stateful(params, state, batch, key):
        return state * loss_fn(params, batch, key), state + 1

    params = mlp_params(0, SIZES)
    key = jax.random.key(0)
    plain = uno.training.second_moment(loss_fn, params, batches(2), key, count=2)
    doubled = uno.training.second_moment(
        stateful, params, batches(2), key, count=2, model_state=2.0, has_model_state=True
    )
    np.testing.assert_allclose(flat(doubled), 4 * flat(plain), rtol=1e-5)
    with pytest.raises(ValueError, match="batches: expected at least 3, got 2"):
        uno.training.second_moment(loss_fn, params, batches(2), key, count=3)
    with pytest.raises(ValueError, match="count: expected at least 1"):
        uno.training.second_moment(loss_fn, params, batches(2), key, count=0)


@pytest.mark.parametrize("tx", [optax.adam(0.1), optax.chain(uno.surgery(), optax.adam(0.1))])
def test_a_warm_state_takes_steps_in_proportion_to_the_gradient(tx):
    params, grads = mlp_params(0, SIZES), mlp_params(1, SIZES)
    moment = jax.tree.map(lambda x: x**2 + 0.1, mlp_params(2, SIZES))
    state = uno.training.warm_adam(tx.init(params), moment)
    zero = jax.tree.map(jnp.zeros_like, grads)
    updates, _ = tx.update(grads, state, params, forget_grads=zero)
    nu = 0.999 * flat(moment) + 0.001 * flat(grads) ** 2
    np.testing.assert_allclose(flat(updates), -0.1 * 0.1 * flat(grads) / np.sqrt(nu), rtol=1e-3)


def test_a_checkpoint_has_the_second_moment():
    tx, params = optax.adam(1e-3), mlp_params(0, SIZES)
    step = uno.make_training_step(loss_fn, tx)
    state = uno.create_state(params, tx, jax.random.key(0))
    for batch in batches(3):
        state, _ = step(state, batch)
    moment = optax.tree.get(state.opt_state, "nu")
    warm = uno.training.warm_adam(tx.init(params), moment)
    np.testing.assert_array_equal(flat(optax.tree.get(warm, "nu")), flat(moment))


def test_no_adam_two_adams_and_another_shape():
    params = jnp.zeros(2)
    for tx, found in ((optax.sgd(1.0), 0), (optax.chain(optax.adam(1.0), optax.adam(1.0)), 2)):
        with pytest.raises(ValueError, match=f"expected exactly one Adam .* found {found}"):
            uno.training.warm_adam(tx.init(params), params)
    with pytest.raises(ValueError, match="second_moment does not match the state's nu"):
        uno.training.warm_adam(optax.adam(1.0).init(params), jnp.zeros(3))
