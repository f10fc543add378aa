import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from tests.transforms.problems import flat, mlp_batch, mlp_loss, mlp_params
from uno_jax.training.passes import make_pass, micro_batches

SIZES = (3, 5, 2)


def mean_loss(params, batch, key):
    del key
    return mlp_loss(params, batch)


def sum_loss(params, batch, key):
    return mean_loss(params, batch, key) * len(batch[0])


@pytest.mark.parametrize(("loss_fn", "reduction"), [(mean_loss, "mean"), (sum_loss, "sum")])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_micro_batches_give_the_gradient_and_the_product_of_the_whole(loss_fn, reduction, dtype):
    params, batch = mlp_params(0, SIZES, dtype), mlp_batch(1, 12, SIZES)
    vector = mlp_params(2, SIZES, dtype)
    key = jax.random.key(0)

    def passed(accumulate):
        run = make_pass(loss_fn, has_model_state=False, reduction=reduction, accumulate=accumulate)
        result = run(params, None, batch, key)
        product = jax.jvp(result.grad_fn, (params,), (vector,))[1]
        return result, product

    (whole, expected), (parts, got) = passed(1), passed(3)
    tolerance = 16 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(parts.loss, whole.loss, rtol=tolerance)
    for a, b in ((parts.grads, whole.grads), (got, expected)):
        assert {leaf.dtype for leaf in jax.tree.leaves(a)} == {jnp.dtype(dtype)}
        assert np.linalg.norm(flat(a) - flat(b)) < tolerance * np.linalg.norm(flat(b))


def test_the_model_state_goes_through_the_micro_batches_in_turn():
    def loss_fn(params, model_state, batch, key):
        del key
        return jnp.mean(params * batch), 0.5 * model_state + jnp.mean(batch)

    run = make_pass(loss_fn, has_model_state=True, accumulate=2)
    result = run(jnp.ones(()), jnp.zeros(()), jnp.array([1.0, 3.0, 1.0, 3.0]), jax.random.key(0))
    # Every second example: (1, 1), then (3, 3).
    assert result.model_state == 0.5 * 1 + 3


def test_noise_differs_between_micro_batches():
    def loss_fn(params, batch, key):
        return params * jnp.mean(batch * jax.random.normal(key, batch.shape))

    run = make_pass(loss_fn, has_model_state=False, accumulate=2)
    result = run(jnp.ones(()), None, jnp.ones(2), jax.random.key(0))
    drawn = [jax.random.normal(jax.random.fold_in(jax.random.key(0), i), (1,)) for i in range(2)]
    np.testing.assert_allclose(result.loss, np.mean(drawn), rtol=1e-6)


def test_none_leaves_and_masked_parameters():
    def loss_fn(params, batch, key):
        del key
        return jnp.mean(params["a"] * params["b"] * batch)

    params = {"a": jnp.ones(()), "b": jnp.full((), 2.0), "n": None}
    run = make_pass(loss_fn, has_model_state=False, accumulate=2)
    result = run(params, None, jnp.arange(4.0), jax.random.key(0))
    assert result.grads == {"a": 3.0, "b": 1.5, "n": None}
    masked = result.grad_fn({**params, "b": optax.MaskedNode()})
    assert masked == {"a": 3.0, "b": optax.MaskedNode(), "n": None}


def test_micro_batches_are_every_kth_example():
    parts = micro_batches({"x": jnp.arange(6)}, 3)["x"]
    np.testing.assert_array_equal(parts, [[0, 3], [1, 4], [2, 5]])
    for batch, got in ((jnp.arange(5), 5), (jnp.zeros(()), 0), (jnp.zeros((0, 2)), 0)):
        with pytest.raises(ValueError, match=f"examples that 3 divides, got {got}"):
            micro_batches(batch, 3)


def test_static_mistakes_are_named():
    with pytest.raises(ValueError, match="reduction: expected one of .'mean', 'sum'., got 'max'"):
        uno.make_training_step(mean_loss, optax.sgd(1.0), reduction="max")
    with pytest.raises(ValueError, match="accumulate: expected at least 1 micro-batch, got 0"):
        uno.make_unlearning_step(mean_loss, optax.sgd(1.0), accumulate=0)
