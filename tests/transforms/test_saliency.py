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


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
    st.integers(0, 2**31 - 2),
    st.floats(0.01, 1.0),
    st.sampled_from([jnp.float32, jnp.bfloat16]),
)
def test_marks_the_largest_over_all_leaves(seed, fraction, dtype):
    f = random_tree(seed, dtype)
    mask = flat(uno.transforms.saliency_mask(f, fraction)).astype(bool)
    sizes = np.abs(flat(f))
    kept = int(np.ceil(fraction * sizes.size - 1e-9))
    assert mask.sum() >= kept
    assert sizes[mask].min() == np.sort(sizes)[-kept]
    if not mask.all():
        assert sizes[~mask].max() < sizes[mask].min()


def test_a_zero_gradient_marks_everything_and_an_empty_tree_nothing():
    zero = jax.tree.map(jnp.zeros_like, random_tree(0))
    assert flat(uno.transforms.saliency_mask(zero, 0.1)).all()
    assert uno.transforms.saliency_mask({"a": None}, 0.5) == {"a": None}


def test_the_mask_is_of_the_first_gradient_and_stays():
    tx = uno.transforms.keep_salient(0.3)
    u = random_tree(0)
    update = jax.jit(chex.assert_max_traces(lambda u, s, f: tx.update(u, s, forget_grads=f), n=1))
    first = random_tree(1)
    expected = flat(uno.transforms.saliency_mask(first, 0.3)) * flat(u)
    state = tx.init(u)
    for seed in (1, 2, 3):
        got, state = update(u, state, random_tree(seed))
        np.testing.assert_allclose(flat(got), expected)
    chex.assert_trees_all_equal_shapes_and_dtypes(got, u)


def test_adam_behind_it_never_moves_the_rest():
    tx = optax.chain(uno.transforms.keep_salient(0.5), optax.adam(0.1))
    params = random_tree(0)
    state, moved = tx.init(params), params
    for seed in range(3):
        updates, state = tx.update(random_tree(seed), state, moved, forget_grads=random_tree(seed))
        moved = optax.apply_updates(moved, updates)
    mask = flat(uno.transforms.saliency_mask(random_tree(0), 0.5)).astype(bool)
    np.testing.assert_array_equal(flat(moved)[~mask], flat(params)[~mask])
    assert (flat(moved)[mask] != flat(params)[mask]).all()


def test_masked_counts_the_visible_part():
    u = random_tree(0)
    mask = {"dense": {"kernel": True, "bias": False}, "nothing": None, "scalar": True, "empty": ()}
    tx = optax.masked(uno.transforms.keep_salient(0.5), mask, mask_compatible_extra_args=True)
    got, _ = tx.update(u, tx.init(u), u, forget_grads=random_tree(1))
    np.testing.assert_array_equal(got["dense"]["bias"], u["dense"]["bias"])
    assert np.count_nonzero(got["dense"]["kernel"]) + np.count_nonzero(got["scalar"]) == 7


def test_on_eight_devices():
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    grads = jax.device_put(jnp.arange(-8.0, 8.0), sharded)
    got = jax.jit(lambda g: uno.transforms.saliency_mask(g, 0.25))(grads)
    np.testing.assert_array_equal(got, np.abs(np.arange(-8.0, 8.0)) >= 6.0)


@pytest.mark.parametrize(
    "build", [uno.transforms.keep_salient, lambda f: uno.transforms.saliency_mask(jnp.ones(2), f)]
)
@pytest.mark.parametrize("fraction", [0.0, 1.5])
def test_a_fraction_out_of_range(build, fraction):
    with pytest.raises(ValueError, match=f"fraction: expected .* got {fraction}"):
        build(fraction)
    with pytest.raises(ValueError, match=r"forget_grads does not match updates"):
        tx = uno.transforms.keep_salient(0.5)
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), forget_grads=jnp.ones(3))
