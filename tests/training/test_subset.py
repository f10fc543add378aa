import chex
import jax
import numpy as np
import optax
import pytest

import uno_jax as uno
from tests.transforms.problems import mlp_batch, mlp_loss, mlp_params

SIZES = (3, 5, 4, 2)
PARAMS = {f"block_{i}": layer for i, layer in enumerate(mlp_params(0, SIZES))}


def loss_fn(params, batch, key):
    del key
    return mlp_loss([params[name] for name in sorted(params)], batch)


def names(tree):
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]


@pytest.mark.parametrize(
    "where", ["block_[12]/w", lambda path, leaf: leaf.ndim == 2 and path != "block_0/w"]
)
def test_each_parameter_is_on_one_side(where):
    subset = uno.trainable(PARAMS, where)
    assert names(subset.trainable) == ["block_1/w", "block_2/w"]
    assert len(names(subset.frozen)) == 4
    chex.assert_trees_all_equal(uno.training.join(*subset), PARAMS)


def test_nothing_chosen_is_named():
    with pytest.raises(ValueError, match="expected 'bias' to choose some of 6 parameters"):
        uno.trainable(PARAMS, "bias")


def test_a_parameter_in_both_trees_is_refused():
    subset = uno.trainable(PARAMS, "w$")
    with pytest.raises(ValueError, match="got it in both"):
        uno.training.join(subset.trainable, subset.trainable)


def test_none_leaves_stay_none():
    params = {**PARAMS, "nothing": None}
    chex.assert_trees_all_equal(uno.training.join(*uno.trainable(params, "w$")), params)


@pytest.mark.parametrize(
    "direction", [uno.surgery, lambda: uno.orthogonalize(0.3)], ids=["surgery", "uno"]
)
def test_the_step_is_that_of_the_part_alone(direction):
    """Beside it: all parameters in the state, the part behind `optax.masked`."""
    retain, forget = mlp_batch(1, 7, SIZES), mlp_batch(2, 6, SIZES)
    subset = uno.trainable(PARAMS, "block_1")
    tx = optax.chain(direction(), optax.adam(0.1))
    state = uno.create_state(subset.trainable, tx, jax.random.key(0), model_state=subset.frozen)
    step = jax.jit(
        uno.make_unlearning_step(
            uno.training.with_frozen(loss_fn), tx, has_model_state=True, model_state_from="none"
        )
    )
    after, metrics = step(state, retain, forget)
    chex.assert_trees_all_equal(after.model_state, subset.frozen)
    assert names(optax.tree.get(after.opt_state, "mu")) == ["block_1/b", "block_1/w"]

    mask = jax.tree.map(
        lambda leaf: leaf is not None, subset.trainable, is_leaf=lambda x: x is None
    )
    masked = optax.chain(
        optax.masked(direction(), mask, mask_compatible_extra_args=True),
        optax.masked(optax.adam(0.1), mask),
        optax.masked(optax.set_to_zero(), jax.tree.map(lambda chosen: not chosen, mask)),
    )
    other, _ = jax.jit(uno.make_unlearning_step(loss_fn, masked))(
        uno.create_state(PARAMS, masked, jax.random.key(0)), retain, forget
    )
    chex.assert_trees_all_close(
        uno.training.join(after.params, after.model_state), other.params, atol=1e-5
    )
    r, f = (jax.grad(loss_fn)(PARAMS, batch, None)["block_1"] for batch in (retain, forget))
    r, f = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)]) for g in (r, f))
    np.testing.assert_allclose(
        metrics["cosine"], r @ f / np.linalg.norm(r) / np.linalg.norm(f), atol=1e-5
    )
