import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.transforms.problems import flat, random_tree
from uno_jax import trees


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_dot_reduces_in_float32(dtype):
    a, b = random_tree(0, dtype), random_tree(1, dtype)
    result = trees.dot(a, b)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, flat(a) @ flat(b), rtol=1e-5)


def test_dot_of_many_small_bfloat16_values_does_not_stall():
    # Summed in bfloat16, ones stop counting at 256.
    ones = {"w": jnp.ones(4096, jnp.bfloat16)}
    assert trees.dot(ones, ones) == 4096


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1.0, 1e18, 1e30])
def test_direction_survives_extreme_scales(scale):
    tree = random_tree(0, scale=scale)
    unit, norm = trees.direction(tree)
    np.testing.assert_allclose(norm, np.linalg.norm(flat(tree)), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(flat(unit)), 1.0, rtol=1e-5)


def test_direction_of_zero_and_of_nothing():
    unit, norm = trees.direction({"w": jnp.zeros(3)})
    assert norm == 0
    np.testing.assert_array_equal(unit["w"], 0)
    assert trees.direction({"w": None, "e": jnp.zeros((0, 2))}).norm == 0
    assert trees.dot({"w": None}, {"w": None}) == 0


def test_small_and_large_leaves_are_one_vector():
    rng = np.random.default_rng(0)
    shapes = {"a": (3,), "b": (), "c": (60, 80), "d": (0, 4), "e": (4096,), "f": (2, 3, 5)}
    one, other = (
        {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
        for _ in range(2)
    )
    one |= {"none": None, "masked": optax.MaskedNode()}
    other |= {"none": None, "masked": optax.MaskedNode()}
    x, y = (np.concatenate([np.ravel(tree[n]) for n in shapes]) for tree in (one, other))
    np.testing.assert_allclose(trees.dot(one, other), x.astype(float) @ y, rtol=1e-5)
    unit, norm = trees.direction(one)
    np.testing.assert_allclose(norm, np.linalg.norm(x.astype(float)), rtol=1e-6)
    flat = np.concatenate([np.ravel(unit[name]) for name in shapes])
    np.testing.assert_allclose(flat, x / np.linalg.norm(x), rtol=1e-5)
    assert jax.tree.structure(unit) == jax.tree.structure(one)


def test_a_dot_product_pairs_leaves_not_numbers():
    # As one long vector each they would fit.
    with pytest.raises(ValueError):
        trees.dot({"a": jnp.ones(2), "b": jnp.ones(3)}, {"a": jnp.ones(2), "c": jnp.ones(3)})
    with pytest.raises(ValueError, match="Incompatible shapes"):
        trees.dot([jnp.ones(2), jnp.ones(3)], [jnp.ones(3), jnp.ones(2)])


def test_leaves_split_by_type_are_reduced_where_they_lie():
    explicit = (jax.sharding.AxisType.Explicit,) * 2
    with jax.set_mesh(jax.make_mesh((4, 2), ("x", "y"), axis_types=explicit)):
        tree = {
            "w": jax.device_put(jnp.arange(64.0).reshape(8, 8), jax.P("x", "y")),
            "b": jax.device_put(jnp.arange(8.0), jax.P("x")),
            "c": jnp.ones(3),
        }
        assert jax.jit(lambda t: trees.dot(t, t))(tree) == 85344 + 140 + 3
        unit, norm = jax.jit(trees.direction)(tree)
        np.testing.assert_allclose(norm, 85487**0.5, rtol=1e-6)
        assert jax.tree.map(jax.typeof, unit) == jax.tree.map(jax.typeof, tree)


def test_check_names_the_first_offending_path():
    def check(tree, reference):
        trees.check_same_structure(tree, reference, tree_name="grads", reference_name="updates")

    good = random_tree(0)
    check(random_tree(1), good)
    with pytest.raises(ValueError, match=r"grads .* updates at '\['dense'\]\['bias'\]'.*\(4,\)"):
        check({**good, "dense": {**good["dense"], "bias": jnp.ones(1)}}, good)
    with pytest.raises(ValueError, match=r"'\['scalar'\]': expected shape \(\), got nothing"):
        check({k: v for k, v in good.items() if k != "scalar"}, good)
    with pytest.raises(ValueError, match=r"'\['extra'\]': expected nothing there, got None"):
        check({**good, "extra": None}, good)
    with pytest.raises(ValueError, match=r"'\['nothing'\]': expected None, got shape"):
        check({**good, "nothing": jnp.ones(2)}, good)
    with pytest.raises(ValueError, match=r"expected MaskedNode, got shape \(\)"):
        check(good, {**good, "scalar": optax.MaskedNode()})
    with pytest.raises(ValueError, match="at the root"):
        check([jnp.ones(1)], (jnp.ones(1),))


def test_restrict_and_fill_are_inverse():
    full = random_tree(0)
    masked = {**full, "dense": optax.MaskedNode()}
    restricted = trees.restrict(full, masked)
    assert jax.tree.structure(restricted) == jax.tree.structure(masked)
    filled = trees.fill_masked(restricted, full)
    jax.tree.map(np.testing.assert_array_equal, filled, full)
    assert trees.restrict(full, full) is full


def test_add_scaled_keeps_dtype_and_sums_in_float32():
    tree = {"w": jnp.ones(2, jnp.bfloat16)}
    result = trees.add_scaled(tree, 0.5, {"w": jnp.full(2, 0.25, jnp.float32)})
    assert result["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(result["w"], np.float32), 1.125)
