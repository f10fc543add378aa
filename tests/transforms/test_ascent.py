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
many = hypothesis.settings(max_examples=30, deadline=None)
BETA = 0.7


def orthogonal(r, f):
    across = f - (f @ r) / (r @ r) * r
    return r - BETA * np.linalg.norm(r) * across / np.linalg.norm(across)


CASES = {
    "ascend": (uno.ascend, lambda r, f: -f),
    "add_forget": (lambda: uno.transforms.add_forget(-0.5), lambda r, f: r - 0.5 * f),
    "ascend_orthogonally": (lambda: uno.transforms.ascend_orthogonally(BETA), orthogonal),
}
every = pytest.mark.parametrize(("build", "formula"), CASES.values(), ids=CASES)


@every
@many
@hypothesis.given(SEEDS, DTYPES)
def test_equals_its_formula(build, formula, seed, dtype):
    r, f = random_tree(seed, dtype), random_tree(seed + 1, dtype)
    tx = build()
    result, _ = tx.update(r, tx.init(r), r, forget_grads=f, unrelated=1)
    chex.assert_trees_all_equal_shapes_and_dtypes(result, r)
    expected = formula(flat(r), flat(f))
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(flat(result), expected, atol=8 * eps * np.linalg.norm(expected))


@every
def test_masked_sees_the_visible_part_alone(build, formula):
    r, f = random_tree(0), random_tree(1)
    mask = {"dense": {"kernel": True, "bias": False}, "nothing": None, "scalar": True, "empty": ()}
    tx = optax.masked(build(), mask, mask_compatible_extra_args=True)
    result, _ = tx.update(r, tx.init(r), r, forget_grads=f)

    def visible(t):
        return np.append(np.ravel(t["dense"]["kernel"]), t["scalar"]).astype(np.float64)

    np.testing.assert_allclose(visible(result), formula(visible(r), visible(f)), atol=1e-5)
    np.testing.assert_array_equal(result["dense"]["bias"], r["dense"]["bias"])


@every
def test_one_trace_in_a_chain_under_jit_and_sharded_alike(build, formula):
    tx = optax.chain(build(), optax.adam(1e-3))
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    rng = np.random.default_rng(0)
    r, f = ({"w": jnp.asarray(rng.normal(size=(16, 3)), jnp.float32)} for _ in range(2))

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, state, r, f):
        updates, state = tx.update(r, state, params, forget_grads=f)
        return optax.apply_updates(params, updates), state

    params, state = r, tx.init(r)
    for _ in range(3):
        params, state = step(params, state, r, f)
    plain = build()
    got = jax.jit(lambda r, f: plain.update(r, plain.init(r), r, forget_grads=f)[0])(
        *jax.device_put((r, f), sharded)
    )
    np.testing.assert_allclose(flat(got), formula(flat(r), flat(f)), atol=1e-5)


@every
def test_another_structure_is_named(build, formula):
    r = random_tree(0)
    tx = build()
    with pytest.raises(ValueError, match=r"forget_grads does not match updates at '\['scalar'\]'"):
        tx.update(r, tx.init(r), r, forget_grads={**r, "scalar": jnp.ones(2)})
    with pytest.raises(TypeError, match="forget_grads"):
        tx.update(r, tx.init(r), r)


@pytest.mark.parametrize("forget_scale", [0.0, 1.0, -2.0])
def test_zero_or_parallel_forget_gradients_leave_the_retain_gradient(forget_scale):
    r = random_tree(0)
    tx = uno.transforms.ascend_orthogonally(1.0)
    f = jax.tree.map(lambda x: forget_scale * x, r)
    result, _ = tx.update(r, tx.init(r), r, forget_grads=f)
    np.testing.assert_allclose(flat(result), flat(r), atol=1e-6 * np.linalg.norm(flat(r)))


def test_a_zero_retain_gradient_stays_zero():
    r = jax.tree.map(jnp.zeros_like, random_tree(0))
    tx = uno.transforms.ascend_orthogonally(1.0)
    result, _ = tx.update(r, tx.init(r), r, forget_grads=random_tree(1))
    np.testing.assert_array_equal(flat(result), 0)


def test_a_negative_strength():
    with pytest.raises(ValueError, match="strength: expected a number of at least 0, got -1"):
        uno.transforms.ascend_orthogonally(-1)
