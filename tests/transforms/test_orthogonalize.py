import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from tests.transforms.problems import flat, mlp_problem


def tree_cosine(a, b):
    dot = sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    return dot / (optax.tree.norm(a) * optax.tree.norm(b))


def penalised(retain, forget, weight):
    """The objective itself, to be differentiated twice by backprop."""

    def objective(p):
        cosine = tree_cosine(jax.grad(retain)(p), jax.grad(forget)(p))
        return retain(p) + weight * cosine**2

    return objective


def run(tx, params, retain, forget, state=None):
    """One update, compiled whole: operation by operation it would be a hundred programs."""
    retain_fn, forget_fn = jax.grad(retain), jax.grad(forget)

    @jax.jit
    def update(params, state):
        return tx.update(
            retain_fn(params), state, params, retain_grad_fn=retain_fn, forget_grad_fn=forget_fn
        )

    return update(params, tx.init(params) if state is None else state)


def assert_relative(got, expected, tolerance):
    error = np.linalg.norm(flat(got) - flat(expected)) / np.linalg.norm(flat(expected))
    assert error < tolerance, error


@hypothesis.settings(max_examples=8, deadline=None)
@hypothesis.given(
    st.integers(0, 10_000),
    st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple),
    st.sampled_from([0.0, 1.0, 1e3]),
)
def test_equals_double_backprop_on_random_networks(seed, sizes, weight):
    params, retain, forget = mlp_problem(seed, sizes)
    cosine = tree_cosine(*jax.jit(lambda p: (jax.grad(retain)(p), jax.grad(forget)(p)))(params))
    # At a cosine of 1 the penalty's gradient is the difference of equals.
    hypothesis.assume(abs(cosine) < 0.99)
    got, state = run(uno.orthogonalize(weight, max_ratio=None), params, retain, forget)
    with jax.enable_x64(True):
        wide, retain64, forget64 = mlp_problem(seed, sizes, jnp.float64)
        expected = jax.jit(jax.grad(penalised(retain64, forget64, weight)))(wide)
    size = np.linalg.norm(flat(expected))
    reference = max(size, weight * 1e-1)
    assert np.linalg.norm(flat(got) - flat(expected)) < 1e-5 * max(reference, 1.0)
    np.testing.assert_allclose(state.cosine, cosine, atol=1e-5)


def test_equals_double_backprop_to_1e5():
    params, retain, forget = mlp_problem(3, (4, 8, 8, 3))
    got, state = run(uno.orthogonalize(10.0, max_ratio=None), params, retain, forget)
    assert_relative(got, jax.jit(jax.grad(penalised(retain, forget, 10.0)))(params), 1e-5)
    np.testing.assert_allclose(state.retain_norm, optax.tree.norm(jax.grad(retain)(params)), 1e-5)
    np.testing.assert_allclose(state.forget_norm, optax.tree.norm(jax.grad(forget)(params)), 1e-5)
    assert state.count == 1


def test_bfloat16_parameters_keep_their_dtype():
    params, retain, forget = mlp_problem(3, (4, 8, 3))
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    got, _ = run(uno.orthogonalize(10.0, max_ratio=None), low, retain, forget)
    chex.assert_trees_all_equal_dtypes(got, low)
    exact = jax.jit(jax.grad(penalised(retain, forget, 10.0)))(
        jax.tree.map(lambda x: x.astype(jnp.float32), low)
    )
    # A Hessian-vector product through bfloat16 layers keeps a few eps.
    assert_relative(got, exact, 20 * float(jnp.finfo(jnp.bfloat16).eps))


def test_a_finite_difference_is_near_the_exact_product_and_wants_float32():
    params, retain, forget = mlp_problem(3, (4, 8, 8, 3))
    tx = uno.orthogonalize(10.0, max_ratio=None, hessian="finite-difference")
    got, _ = run(tx, params, retain, forget)
    exact, _ = run(uno.orthogonalize(10.0, max_ratio=None), params, retain, forget)
    assert_relative(got, exact, 5e-3)
    assert np.abs(flat(got) - flat(exact)).max() > 0
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    with pytest.raises(ValueError, match="expected parameters of float32 or more, got bfloat16"):
        run(tx, low, retain, forget)


def test_a_finite_difference_of_a_quadratic_is_exact_to_rounding():
    # L_r = |x|²/2 and L_f = x·a: H_r = 1, H_f = 0.
    params, a = jnp.array([2.0, 3.0]), jnp.array([1.0, -2.0])
    got, want = (
        run(
            uno.orthogonalize(5.0, max_ratio=None, hessian=hessian),
            params,
            lambda p: p @ p / 2,
            lambda p: p @ a,
        )[0]
        for hessian in ("finite-difference", "exact")
    )
    # The step is 3e-6 of parameters that have seven digits.
    np.testing.assert_allclose(got, want, rtol=0.03)


def quadratic(p):
    return jnp.sum((p["a"] - 1.0) ** 2) + p["b"] ** 2


def quartic(p):
    return jnp.sum(p["a"] ** 4) + p["a"][0] * p["b"]


def test_closed_form_by_hand():
    # L_r = x²/2 and L_f = x·y: g_r = (x, 0), g_f = (y, x), cos² = y²/(x² + y²).
    params = jnp.array([2.0, 3.0])
    got, state = run(
        uno.orthogonalize(5.0, max_ratio=None),
        params,
        lambda p: p[0] ** 2 / 2,
        lambda p: p[0] * p[1],
    )
    x, y = 2.0, 3.0
    square = (x * x + y * y) ** 2
    penalty = np.array([-2 * x * y * y, 2 * x * x * y]) / square
    np.testing.assert_allclose(got, np.array([x, 0.0]) + 5.0 * penalty, rtol=1e-5)
    np.testing.assert_allclose(state.cosine, y / np.sqrt(x * x + y * y), rtol=1e-6)


@pytest.mark.parametrize("zero", ["retain", "forget"])
def test_a_zero_gradient_leaves_the_updates_unchanged(zero):
    params = {"a": jnp.array([2.0, 3.0]), "b": jnp.array(1.0)}
    losses = {"retain": quadratic, "forget": quartic, zero: lambda p: 0.0 * jnp.sum(p["a"])}
    got, state = run(uno.orthogonalize(), params, losses["retain"], losses["forget"])
    chex.assert_trees_all_equal(got, jax.grad(losses["retain"])(params))
    assert state.cosine == 0


def test_none_leaves_pass_through():
    params = {"a": jnp.array([2.0, 3.0]), "b": jnp.array(1.0), "none": None}
    got, _ = run(uno.orthogonalize(2.0, max_ratio=None), params, quadratic, quartic)
    expected = jax.grad(penalised(quadratic, quartic, 2.0))(params)
    assert got["none"] is None
    assert_relative(got, expected, 1e-5)


def test_masked_is_uno_of_the_visible_part():
    params = {"a": jnp.array([2.0, 3.0]), "b": jnp.array(1.0)}
    tx = optax.masked(
        uno.orthogonalize(2.0, max_ratio=None),
        {"a": True, "b": False},
        mask_compatible_extra_args=True,
    )
    grads = jax.grad(quadratic)(params)
    got, _ = tx.update(
        grads,
        tx.init(params),
        params,
        retain_grad_fn=uno.training.accept_masked(jax.grad(quadratic), params),
        forget_grad_fn=uno.training.accept_masked(jax.grad(quartic), params),
    )
    np.testing.assert_array_equal(got["b"], grads["b"])
    frozen = params["b"]
    expected = jax.grad(
        penalised(
            lambda a: quadratic({"a": a, "b": frozen}),
            lambda a: quartic({"a": a, "b": frozen}),
            2.0,
        )
    )(params["a"])
    np.testing.assert_allclose(got["a"], expected, rtol=1e-5)


def test_weight_as_schedule_and_as_injected_hyperparameter():
    params = {"a": jnp.array([2.0, 3.0]), "b": jnp.array(1.0)}
    grads = jax.grad(quadratic)(params)
    unit, _ = run(uno.orthogonalize(1.0, max_ratio=None), params, quadratic, quartic)
    penalty = flat(unit) - flat(grads)

    tx = uno.orthogonalize(lambda count: 10.0 * count, max_ratio=None)
    first, state = run(tx, params, quadratic, quartic)
    np.testing.assert_array_equal(flat(first), flat(grads))
    second, _ = run(tx, params, quadratic, quartic, state)
    np.testing.assert_allclose(flat(second), flat(grads) + 10 * penalty, rtol=1e-4)

    tx = optax.inject_hyperparams(uno.orthogonalize)(weight=1.0, max_ratio=jnp.inf)
    state = tx.init(params)
    state.hyperparams["weight"] = jnp.asarray(3.0)
    got, _ = run(tx, params, quadratic, quartic, state)
    np.testing.assert_allclose(flat(got), flat(grads) + 3 * penalty, rtol=1e-4)


def test_static_mistakes_are_named():
    with pytest.raises(ValueError, match="hessian: expected one of .*'exact'.*got 'magic'"):
        uno.orthogonalize(hessian="magic")
    with pytest.raises(ValueError, match="weight: expected .* got -1"):
        uno.orthogonalize(-1.0)
    with pytest.raises(ValueError, match="max_ratio: expected .* None for no bound, got -0.1"):
        uno.orthogonalize(max_ratio=-0.1)
    params = {"a": jnp.ones(2), "b": jnp.array(1.0)}
    tx = uno.orthogonalize()
    grad_fn = jax.grad(quadratic)
    arguments = {"retain_grad_fn": grad_fn, "forget_grad_fn": grad_fn}
    with pytest.raises(ValueError, match="expected params"):
        tx.update(grad_fn(params), tx.init(params), **arguments)
    arguments["forget_grad_fn"] = lambda p: {"a": jnp.ones(3), "b": p["b"]}
    with pytest.raises(ValueError, match=r"forget_grad_fn\(params\) .* at '\['a'\]'.*\(3,\)"):
        tx.update(grad_fn(params), tx.init(params), params, **arguments)


def test_chain_reads_the_cosine_and_drives_it_to_zero():
    params, retain, forget = mlp_problem(3, (4, 8, 3))
    tx = optax.chain(uno.orthogonalize(weight=10.0, max_ratio=None), optax.adam(1e-2))

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, state):
        updates, state = run(tx, params, retain, forget, state)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    params, state = step(params, state)
    before = optax.tree.get(state, "cosine")
    for _ in range(100):
        params, state = step(params, state)
    assert abs(before) > 0.1
    assert abs(optax.tree.get(state, "cosine")) < 0.2 * abs(before)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("sizes", [(3, 5, 2), (4, 8, 8, 3), (6, 30, 10)])
def test_below_the_bound_the_update_is_bitwise_the_published_one(seed, sizes):
    params, retain, forget = mlp_problem(seed, sizes)
    published, _ = run(uno.orthogonalize(0.1, max_ratio=None), params, retain, forget)
    bounded, state = run(uno.orthogonalize(0.1), params, retain, forget)
    assert 0 < state.penalty_ratio < 1
    chex.assert_trees_all_equal(bounded, published)


@pytest.mark.parametrize("max_ratio", [0.0, 0.3, 1.0])
def test_above_the_bound_the_penalty_keeps_its_direction_and_gets_its_length(max_ratio):
    params, retain, forget = mlp_problem(3, (4, 8, 3))
    grads = flat(jax.jit(jax.grad(retain))(params))
    published, _ = run(uno.orthogonalize(1e3, max_ratio=None), params, retain, forget)
    bounded, state = run(uno.orthogonalize(1e3, max_ratio=max_ratio), params, retain, forget)
    penalty = flat(published) - grads
    np.testing.assert_allclose(state.penalty_norm, np.linalg.norm(penalty), rtol=1e-5)
    np.testing.assert_allclose(
        state.penalty_ratio, np.linalg.norm(penalty) / np.linalg.norm(grads), rtol=1e-5
    )
    assert state.penalty_ratio > 1
    expected = grads + max_ratio * np.linalg.norm(grads) * penalty / np.linalg.norm(penalty)
    np.testing.assert_allclose(flat(bounded), expected, atol=1e-5 * np.linalg.norm(grads))


def test_the_bound_as_an_injected_hyperparameter():
    params, retain, forget = mlp_problem(3, (4, 8, 3))
    tx = optax.inject_hyperparams(uno.orthogonalize)(weight=1e3, max_ratio=1.0)
    state = tx.init(params)
    for max_ratio in (0.3, 2.0):
        state.hyperparams["max_ratio"] = jnp.asarray(max_ratio)
        got, _ = run(tx, params, retain, forget, state)
        expected, _ = run(uno.orthogonalize(1e3, max_ratio=max_ratio), params, retain, forget)
        assert_relative(got, expected, 1e-6)


def test_a_penalty_that_is_not_finite_stays_visible():
    params = jnp.array([1.0, 2.0])
    got, state = run(
        uno.orthogonalize(), params, lambda p: jnp.sum(p**2), lambda p: jnp.sum(p**2) * jnp.inf
    )
    assert not np.isfinite(flat(got)).all()
    assert not np.isfinite(state.penalty_norm)


@pytest.mark.parametrize("max_ratio", [-1.0, jnp.nan])
def test_what_is_no_bound_is_seen_when_it_is_traced(max_ratio):
    params, retain, forget = mlp_problem(3, (4, 8, 3))
    got, _ = run(uno.orthogonalize(1e3, max_ratio=jnp.asarray(max_ratio)), params, retain, forget)
    assert np.isnan(flat(got)).all()


@pytest.mark.parametrize("scale", [1e-12, 1e-19, 1e-25])
def test_a_very_small_retain_gradient_has_a_penalty_of_its_own_length(scale):
    params = jnp.array([1.0, 2.0, 3.0])

    def retain(p):
        return scale * (jnp.sum(p[:2] ** 2) + p[0] * p[2])

    got, state = run(uno.orthogonalize(), params, retain, lambda p: jnp.sum(p**4))
    grads = jax.grad(retain)(params)
    assert state.penalty_ratio > 1
    size = np.linalg.norm(flat(grads))
    np.testing.assert_allclose(np.linalg.norm(flat(got) - flat(grads)) / size, 1.0, rtol=1e-3)
