import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from tests.transforms.problems import flat, random_tree

SEEDS = st.integers(0, 2**31 - 2)
DTYPES = st.sampled_from([jnp.float32, jnp.bfloat16])
many = hypothesis.settings(max_examples=40, deadline=None)


def closed_form(u, r):
    return u - (u @ r) / (r @ r) * r


@many
@hypothesis.given(SEEDS, DTYPES)
def test_equals_the_closed_form_and_is_orthogonal(seed, dtype):
    u, r = random_tree(seed, dtype), random_tree(seed + 1, dtype)
    result = uno.transforms.project_out(u, r)
    chex.assert_trees_all_equal_shapes_and_dtypes(result, u)
    eps = float(jnp.finfo(dtype).eps)
    size = np.linalg.norm(flat(u))
    np.testing.assert_allclose(flat(result), closed_form(flat(u), flat(r)), atol=4 * eps * size)
    assert abs(flat(result) @ flat(r)) <= 4 * eps * size * np.linalg.norm(flat(r))


@many
@hypothesis.given(SEEDS, DTYPES)
def test_is_idempotent(seed, dtype):
    u, r = random_tree(seed, dtype), random_tree(seed + 1, dtype)
    once = uno.transforms.project_out(u, r)
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(
        flat(uno.transforms.project_out(once, r)),
        flat(once),
        atol=4 * eps * np.linalg.norm(flat(u)),
    )


@many
@hypothesis.given(SEEDS, st.floats(-30, 30), st.booleans())
def test_ignores_the_scale_of_the_reference(seed, exponent, negative):
    u, r = random_tree(seed), random_tree(seed + 1)
    scale = (-1.0 if negative else 1.0) * 10.0**exponent
    scaled = jax.tree.map(lambda x: x * scale, r)
    hypothesis.assume(np.all(np.isfinite(flat(scaled))))
    np.testing.assert_allclose(
        flat(uno.transforms.project_out(u, scaled)),
        flat(uno.transforms.project_out(u, r)),
        atol=1e-5 * np.linalg.norm(flat(u)),
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_zero_reference_changes_nothing(dtype):
    u = random_tree(0, dtype)
    chex.assert_trees_all_equal(uno.transforms.project_out(u, jax.tree.map(jnp.zeros_like, u)), u)


def test_parallel_to_the_reference_nothing_is_left():
    u = random_tree(0)
    left = uno.transforms.project_out(u, jax.tree.map(lambda x: -3 * x, u))
    assert np.linalg.norm(flat(left)) < 1e-6 * np.linalg.norm(flat(u))


@pytest.mark.parametrize(
    ("tx", "argument"),
    [(uno.orthogonalize_against(), "retain_grads"), (uno.surgery(), "forget_grads")],
)
def test_the_reference_is_an_extra_argument(tx, argument):
    u, r = random_tree(0), random_tree(1)
    state = tx.init(u)
    result, state = tx.update(u, state, u, **{argument: r}, unrelated=3)
    np.testing.assert_allclose(flat(result), closed_form(flat(u), flat(r)), atol=1e-6)
    cosine = flat(u) @ flat(r) / np.linalg.norm(flat(u)) / np.linalg.norm(flat(r))
    np.testing.assert_allclose(optax.tree.get(state, "cosine"), cosine, rtol=1e-5)
    with pytest.raises(TypeError, match=argument):
        tx.update(u, state, u)
    broken = {**r, "scalar": jnp.ones(2)}
    with pytest.raises(ValueError, match=rf"{argument} does not match updates at '\['scalar'\]'"):
        tx.update(u, state, u, **{argument: broken})


def test_a_fixed_reference_wins_over_the_argument():
    u, r = random_tree(0), random_tree(1)
    tx = uno.orthogonalize_against(r)
    result, _ = tx.update(u, tx.init(u), u, retain_grads=random_tree(2))
    np.testing.assert_allclose(flat(result), closed_form(flat(u), flat(r)), atol=1e-6)


@pytest.mark.parametrize("fixed", [False, True])
def test_masked_projects_within_the_visible_part(fixed):
    u, r = random_tree(0), random_tree(1)
    mask = {"dense": {"kernel": True, "bias": False}, "nothing": None, "scalar": True, "empty": ()}
    tx = optax.masked(
        uno.orthogonalize_against(r if fixed else None), mask, mask_compatible_extra_args=True
    )
    extra = {} if fixed else {"retain_grads": r}
    result, _ = tx.update(u, tx.init(u), u, **extra)

    def visible(t):
        return np.append(np.ravel(t["dense"]["kernel"]), t["scalar"]).astype(np.float64)

    np.testing.assert_allclose(visible(result), closed_form(visible(u), visible(r)), atol=1e-6)
    np.testing.assert_array_equal(result["dense"]["bias"], u["dense"]["bias"])


def test_surgery_by_ascent_is_a_chain():
    u, r = random_tree(0), random_tree(1)
    tx = optax.chain(uno.orthogonalize_against(), optax.scale(-1.0), optax.sgd(0.1))
    updates, _ = tx.update(u, tx.init(u), u, retain_grads=r)
    # sgd negates once more: a positive multiple of the projected forget gradient.
    np.testing.assert_allclose(flat(updates), 0.1 * closed_form(flat(u), flat(r)), atol=1e-6)


def test_one_trace_in_a_chain_under_jit():
    tx = optax.chain(uno.surgery(), optax.adam(1e-3))
    params = random_tree(0)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, state, u, r):
        updates, state = tx.update(u, state, params, forget_grads=r)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for i in range(4):
        params, state = step(params, state, random_tree(2 * i), random_tree(2 * i + 1))
    assert np.all(np.isfinite(flat(params)))


def test_inject_hyperparams_builds_it():
    u, r = random_tree(0), random_tree(1)
    tx = optax.inject_hyperparams(uno.orthogonalize_against)()
    result, _ = tx.update(u, tx.init(u), u, retain_grads=r)
    np.testing.assert_allclose(flat(result), closed_form(flat(u), flat(r)), atol=1e-6)


def test_sharded_over_eight_devices():
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    rng = np.random.default_rng(0)
    u, r = ({"w": jnp.asarray(rng.normal(size=(16, 3)), jnp.float32)} for _ in range(2))
    expected = uno.transforms.project_out(u, r)
    got = jax.jit(uno.transforms.project_out)(*jax.device_put((u, r), sharded))
    assert got["w"].sharding.spec == sharded.spec
    np.testing.assert_allclose(got["w"], expected["w"], atol=1e-6)
