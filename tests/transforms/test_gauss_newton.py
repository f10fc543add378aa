import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from tests.transforms.problems import flat, random_tree


def dense_problem(seed, dtype=jnp.float32):
    """A random positive semi-definite matrix as a product over a tree."""
    updates = random_tree(seed, dtype)
    size = flat(updates).size
    root = np.random.default_rng(seed).normal(size=(size // 2, size))
    matrix = root.T @ root / size

    def product(tree):
        leaves, structure = jax.tree.flatten(tree)
        vector = jnp.concatenate([x.ravel().astype(jnp.float32) for x in leaves])
        result = jnp.asarray(matrix, jnp.float32) @ vector
        pieces = jnp.split(result, np.cumsum([x.size for x in leaves])[:-1])
        return jax.tree.unflatten(
            structure,
            [p.reshape(x.shape).astype(x.dtype) for p, x in zip(pieces, leaves, strict=True)],
        )

    return updates, matrix, lambda params: product


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_agrees_with_a_dense_solve(seed, scale):
    updates, matrix, curvature_fn = dense_problem(seed)
    updates = jax.tree.map(lambda x: x * scale, updates)
    tx = uno.transforms.scale_by_gauss_newton(damping=0.3, iterations=40)
    got, state = tx.update(updates, tx.init(updates), updates, curvature_fn=curvature_fn)
    expected = np.linalg.solve(matrix + 0.3 * np.eye(len(matrix)), flat(updates))
    np.testing.assert_allclose(flat(got), expected, atol=1e-4 * np.linalg.norm(expected))
    assert state.residual < 1e-4


def test_bfloat16_keeps_its_dtype():
    updates, matrix, curvature_fn = dense_problem(0, jnp.bfloat16)
    tx = uno.transforms.scale_by_gauss_newton(damping=1.0, iterations=10)
    got, _ = tx.update(updates, tx.init(updates), updates, curvature_fn=curvature_fn)
    chex.assert_trees_all_equal_dtypes(got, updates)
    expected = np.linalg.solve(matrix + np.eye(len(matrix)), flat(updates))
    eps = float(jnp.finfo(jnp.bfloat16).eps)
    np.testing.assert_allclose(flat(got), expected, atol=8 * eps * np.linalg.norm(expected))


def test_zero_updates_stay_zero_and_large_damping_is_plain_descent():
    updates, _, curvature_fn = dense_problem(0)
    zero = jax.tree.map(jnp.zeros_like, updates)
    tx = uno.transforms.scale_by_gauss_newton()
    got, state = tx.update(zero, tx.init(zero), zero, curvature_fn=curvature_fn)
    assert not flat(got).any() and state.residual == 0
    tx = uno.transforms.scale_by_gauss_newton(damping=1e6)
    got, _ = tx.update(updates, tx.init(updates), updates, curvature_fn=curvature_fn)
    np.testing.assert_allclose(1e6 * flat(got), flat(updates), rtol=1e-3)


def test_early_iterations_leave_a_residual():
    updates, _, curvature_fn = dense_problem(0)
    tx = uno.transforms.scale_by_gauss_newton(damping=1e-3, iterations=1)
    _, state = tx.update(updates, tx.init(updates), updates, curvature_fn=curvature_fn)
    assert state.residual > 1e-2


def test_static_mistakes_are_named():
    with pytest.raises(ValueError, match="damping: expected a positive number, got 0"):
        uno.transforms.scale_by_gauss_newton(0)
    with pytest.raises(ValueError, match="iterations: expected at least 1, got 0"):
        uno.transforms.scale_by_gauss_newton(iterations=0)
    updates, _, curvature_fn = dense_problem(0)
    tx = uno.transforms.scale_by_gauss_newton()
    with pytest.raises(ValueError, match="expected params"):
        tx.update(updates, tx.init(updates), curvature_fn=curvature_fn)


def search(value_fn, params, updates, factors=(1.0, 0.5, 0.25, 0.125)):
    tx = uno.transforms.line_search(factors)
    return tx.update(updates, tx.init(params), params, value_fn=value_fn)


def test_line_search_finds_the_best_factor():
    params, updates = {"a": jnp.asarray(1.0), "n": None}, {"a": jnp.asarray(-4.0), "n": None}
    got, state = search(lambda p: p["a"] ** 2, params, updates)
    assert (got["a"], state.step_size, state.value) == (-1.0, 0.25, 0.0)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, 5.0])
def test_line_search_never_rises(bad):
    got, state = search(lambda p: jnp.where(p == 1.0, 1.0, bad), jnp.asarray(1.0), jnp.asarray(2.0))
    assert (got, state.step_size, state.value) == (0.0, 0.0, 1.0)


def test_line_search_stops_asking_past_the_minimum():
    asked = []

    def value_fn(p):
        jax.debug.callback(lambda x: asked.append(float(x)), p, ordered=True)
        return (p - 1.0) ** 2

    got, _ = jax.jit(lambda: search(value_fn, jnp.asarray(0.0), jnp.asarray(1.0)))()
    jax.effects_barrier()
    assert got == 1.0
    assert asked == [0.0, 1.0, 0.5]


@pytest.mark.parametrize("factors", [(), (0.5, 0.5), (1.0, 0.0), (0.5, 1.0)])
def test_line_search_factors_descend(factors):
    with pytest.raises(ValueError, match="factors: expected positive and descending"):
        uno.transforms.line_search(factors)


def test_line_search_keeps_dtypes():
    params, updates = jnp.ones(2, jnp.bfloat16), -2 * jnp.ones(2, jnp.bfloat16)
    got, _ = search(lambda p: jnp.sum(p.astype(jnp.float32) ** 2), params, updates)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(got, np.float32), -1.0)


def test_in_a_chain():
    updates, _, curvature_fn = dense_problem(0)
    tx = optax.chain(
        uno.transforms.scale_by_gauss_newton(), optax.scale(-1.0), uno.transforms.line_search()
    )
    got, state = tx.update(
        updates,
        tx.init(updates),
        updates,
        curvature_fn=curvature_fn,
        value_fn=lambda p: sum(jnp.sum(x) for x in jax.tree.leaves(p)),
    )
    assert np.isfinite(flat(got)).all()
    assert optax.tree.get(state, "step_size") >= 0
