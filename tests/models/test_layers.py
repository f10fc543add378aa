import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uno_jax.models import layers

SHAPES = st.tuples(
    st.sampled_from([1, 3, 5]),
    st.sampled_from([2, 4, 6]),
    st.sampled_from([2, 8]),
    st.sampled_from([1, 3, 7]),
    st.sampled_from([1, 4]),
)
EACH = pytest.mark.parametrize("function", [layers.conv_down, layers.conv_up])


def problem(shape, seed=0):
    n, h, w, c, f = shape
    rng = np.random.default_rng(seed)
    return (
        jnp.asarray(rng.normal(size=(n, h, w, c)), jnp.float32),
        jnp.asarray(rng.normal(size=(4, 4, c, f)), jnp.float32),
    )


def by_hand(x, kernel, up):
    """The sums of the docstrings, in float64, pixel by pixel."""
    x, k = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    n, h, w, _ = x.shape
    out = np.zeros((n, 2 * h, 2 * w, k.shape[-1]) if up else (n, h // 2, w // 2, k.shape[-1]))
    small = (h, w) if up else out.shape[1:3]
    large = out.shape[1:3] if up else (h, w)
    for i, j, a, b in np.ndindex(*small, 4, 4):
        p, q = 2 * i + a - 1, 2 * j + b - 1
        if 0 <= p < large[0] and 0 <= q < large[1]:
            if up:
                out[:, p, q] += x[:, i, j] @ k[a, b]
            else:
                out[:, i, j] += x[:, p, q] @ k[a, b]
    return out


@EACH
@pytest.mark.parametrize("form", ["plain", "matrix"])
@hypothesis.settings(max_examples=10, deadline=None)
@hypothesis.given(SHAPES)
def test_equals_the_sum(function, form, shape):
    x, kernel = problem(shape)
    got = function(x, kernel, form=form)
    expected = by_hand(x, kernel, function is layers.conv_up)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)


@EACH
@pytest.mark.parametrize("shape", [(3, 4, 6, 5, 2), (1, 2, 2, 1, 3)])
def test_gradients_and_hessian_products_agree(function, shape):
    x, kernel = problem(shape)
    vector = problem(shape, 1)

    def derivatives(form):
        def loss(arguments):
            return jnp.sum(jnp.sin(function(*arguments, form=form)))

        gradient = jax.grad(loss)
        return gradient((x, kernel)), jax.jvp(gradient, ((x, kernel),), (vector,))[1]

    for a, b in zip(*(jax.tree.leaves(derivatives(f)) for f in ("plain", "matrix")), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_up_is_the_transpose_of_down():
    x, kernel = problem((2, 6, 4, 3, 5))

    def down(pixels):
        return layers.conv_down(pixels, kernel, form="matrix")

    y = jax.random.normal(jax.random.key(0), down(x).shape)
    (expected,) = jax.linear_transpose(down, x)(y)
    got = layers.conv_up(y, kernel.transpose(0, 1, 3, 2), form="matrix")
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("module", "side"), [(layers.ConvDown, 4), (layers.ConvUp, 16)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_modules_keep_the_dtype_of_their_input(module, side, dtype):
    x = jnp.ones((2, 8, 8, 3), dtype)
    variables = module(5).init(jax.random.key(0), x)
    assert variables["params"]["kernel"].shape == (4, 4, 3, 5)
    assert variables["params"]["kernel"].dtype == jnp.float32
    out = module(5).apply(variables, x)
    assert out.shape == (2, side, side, 5) and out.dtype == dtype


def test_mistakes_are_named():
    x, kernel = problem((1, 4, 4, 3, 2))
    with pytest.raises(ValueError, match="form: expected one of"):
        layers.conv_up(x, kernel, form="x")
    with pytest.raises(ValueError, match="expected even sides, got 3 x 4"):
        layers.conv_down(x[:, :3], kernel)
    with pytest.raises(ValueError, match=r"got \(1, 4, 4, 2\) and \(4, 4, 3, 2\)"):
        layers.conv_down(x[..., :2], kernel)


def same_problem(shape):
    x, kernel = problem(shape)
    return x, kernel[:3, :3]


@pytest.mark.parametrize("form", ["plain", "matrix"])
@hypothesis.settings(max_examples=10, deadline=None)
@hypothesis.given(SHAPES)
def test_same_equals_the_sum(form, shape):
    x, kernel = same_problem(shape)
    n, h, w, _ = x.shape
    expected = np.zeros((n, h, w, kernel.shape[-1]))
    for i, j, a, b in np.ndindex(h, w, 3, 3):
        p, q = i + a - 1, j + b - 1
        if 0 <= p < h and 0 <= q < w:
            expected[:, i, j] += np.asarray(x[:, p, q] @ kernel[a, b])
    got = layers.conv_same(x, kernel, form=form)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)


def test_gradients_and_hessian_products_of_same_agree():
    arguments, vector = same_problem((3, 4, 6, 5, 2)), same_problem((3, 4, 6, 5, 2))

    def derivatives(form):
        gradient = jax.grad(lambda both: jnp.sum(jnp.sin(layers.conv_same(*both, form=form))))
        return gradient(arguments), jax.jvp(gradient, (arguments,), (vector,))[1]

    for a, b in zip(*(jax.tree.leaves(derivatives(f)) for f in ("plain", "matrix")), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())
