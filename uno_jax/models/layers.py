"""Stride-2 convolutions and their transposes, in the form that a backend runs fast.

XLA's CPU backend is slow at strided and transposed convolutions and slower at their
gradients. Both are written here as one matrix multiplication over rearranged pixels as
well: the same sums of the same products, with the parameters in the ordinary layout.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

FORMS = ("auto", "plain", "matrix")
_NHWC = ("NHWC", "HWIO", "NHWC")


def _check(x, kernel, form, side=4):
    if form not in FORMS:
        raise ValueError(f"form: expected one of {FORMS}, got {form!r}.")
    if kernel.shape[:2] != (side, side) or kernel.shape[2] != x.shape[-1] or x.ndim != 4:
        raise ValueError(
            f"expected (N, H, W, C) pixels and a ({side}, {side}, C, features) kernel, got "
            f"{x.shape} and {kernel.shape}."
        )


def _product(pixels, matrix):
    # A product of two matrices: XLA's CPU backend is slower at one with four axes.
    return pixels.reshape(-1, pixels.shape[-1]) @ matrix


def conv_down(x: jax.Array, kernel: jax.Array, *, form: str = "auto") -> jax.Array:
    r"""Halves the sides: a 4x4 convolution of stride 2 and padding 1.

    .. math:: y_{ij} = \sum_{a,b=0}^{3} x_{2i+a-1,\,2j+b-1}\, k_{ab}

    Args:
      x: (N, H, W, C) float, H and W even.
      kernel: (4, 4, C, features) float.
      form: `"plain"`: XLA's convolution; `"matrix"`: space to depth, the four shifted
        views side by side, one matrix multiplication; `"auto"`: on CPU the matrix form
        where it measured faster (few channels or few pixels), else the plain one.

    Returns:
      (N, H / 2, W / 2, features).

    Raises:
      ValueError: if shapes do not fit, a side is odd, or for an unknown form.
    """
    _check(x, kernel, form)
    count, height, width, channels = x.shape
    if height % 2 or width % 2:
        raise ValueError(f"conv_down: expected even sides, got {height} x {width}.")
    if form == "auto":
        form = "matrix" if jax.default_backend() == "cpu" else "plain"
    if form == "plain":
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=_NHWC
        )
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = height // 2, width // 2
    # blocks[i, j] holds the 2x2 pixels of place (i, j) as channels (p, q, c).
    blocks = padded.reshape(count, rows + 1, 2, columns + 1, 2, channels)
    blocks = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(count, rows + 1, columns + 1, -1)
    views = [blocks[:, u : u + rows, v : v + columns] for u in (0, 1) for v in (0, 1)]
    # kernel[2u + p, 2v + q] in the order (u, v, p, q, c) of the views' channels.
    matrix = kernel.reshape(2, 2, 2, 2, channels, -1).transpose(0, 2, 1, 3, 4, 5)
    pixels = _product(jnp.concatenate(views, axis=-1), matrix.reshape(16 * channels, -1))
    return pixels.reshape(count, rows, columns, -1)


def conv_up(x: jax.Array, kernel: jax.Array, *, form: str = "auto") -> jax.Array:
    r"""Doubles the sides: the transpose of a 4x4 convolution of stride 2 and padding 1.

    .. math:: y_{2i+a-1,\,2j+b-1} \mathrel{+}= x_{ij}\, k_{ab}

    Args:
      x: (N, H, W, C) float.
      kernel: (4, 4, C, features) float.
      form: `"plain"`: XLA's convolution of the dilated input; `"matrix"`: every 2x2
        window of pixels gives 2x2 pixels, by one matrix multiplication and depth to
        space; `"auto"`: the matrix form on CPU, else the plain one.

    Returns:
      (N, 2H, 2W, features).

    Raises:
      ValueError: if shapes do not fit, or for an unknown form.
    """
    _check(x, kernel, form)
    count, height, width, channels = x.shape
    features = kernel.shape[-1]
    if form == "auto":
        form = "matrix" if jax.default_backend() == "cpu" else "plain"
    if form == "plain":
        return jax.lax.conv_general_dilated(
            x,
            kernel[::-1, ::-1],
            (1, 1),
            ((2, 2), (2, 2)),
            lhs_dilation=(2, 2),
            dimension_numbers=_NHWC,
        )
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # Window i covers x[i - 1] and x[i] (u = 0, 1) and gives y[2i - 1] and y[2i] (p = 0, 1).
    views = [padded[:, u : u + height + 1, v : v + width + 1] for u in (0, 1) for v in (0, 1)]
    # y[2i - 1 + p] takes x[i - 1 + u] times k[a] with a = 2 (1 - u) + p.
    matrix = kernel.reshape(2, 2, 2, 2, channels, features)[::-1, :, ::-1]
    matrix = matrix.transpose(0, 2, 4, 1, 3, 5).reshape(4 * channels, 4 * features)
    windows = _product(jnp.concatenate(views, axis=-1), matrix)
    windows = windows.reshape(count, height + 1, width + 1, 2, 2, features)
    pixels = windows.transpose(0, 1, 3, 2, 4, 5)
    pixels = pixels.reshape(count, 2 * height + 2, 2 * width + 2, features)
    return pixels[:, 1:-1, 1:-1]


def conv_same(x: jax.Array, kernel: jax.Array, *, form: str = "auto") -> jax.Array:
    r"""Keeps the sides: a 3x3 convolution of stride 1 and padding 1.

    .. math:: y_{ij} = \sum_{a,b=0}^{2} x_{i+a-1,\,j+b-1}\, k_{ab}

    Args:
      x: (N, H, W, C) float.
      kernel: (3, 3, C, features) float.
      form: `"plain"`: XLA's convolution; `"matrix"`: one matrix multiplication gives
        every pixel's part in its nine neighbours, which are then added; `"auto"`: on CPU
        the matrix form where there are few features, else the plain one.

    Returns:
      (N, H, W, features).

    Raises:
      ValueError: if shapes do not fit, or for an unknown form.
    """
    _check(x, kernel, form, 3)
    count, height, width, channels = x.shape
    features = kernel.shape[-1]
    if form == "auto":
        form = "matrix" if features <= 4 and jax.default_backend() == "cpu" else "plain"
    if form == "plain":
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_NHWC
        )
    matrix = kernel.transpose(2, 0, 1, 3).reshape(channels, 9 * features)
    parts = _product(x, matrix).reshape(count, height, width, 3, 3, features)
    parts = jnp.pad(parts, ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0), (0, 0)))
    places = [(a, b) for a in range(3) for b in range(3)]
    return sum(parts[:, a : a + height, b : b + width, a, b] for a, b in places)


class _Resampling(nn.Module):
    """A kernel and a bias around one of the functions above."""

    features: int
    form: str = "auto"
    function: Callable = conv_down
    side: int = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        shape = (self.side, self.side, x.shape[-1], self.features)
        kernel = self.param("kernel", init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=x.dtype)
        return self.function(x, kernel, form=self.form) + bias


class ConvDown(_Resampling):
    """Halves the sides, with bias; parameters `kernel` (4, 4, C, features) and `bias`."""


class ConvUp(_Resampling):
    """Doubles the sides, with bias; parameters `kernel` (4, 4, C, features) and `bias`."""

    function: Callable = conv_up


class ConvSame(_Resampling):
    """Keeps the sides, with bias; parameters `kernel` (3, 3, C, features) and `bias`."""

    function: Callable = conv_same
    side: int = 3


def batch_norm(name: str, dtype=None, axis_name: str | None = None) -> nn.BatchNorm:
    """Batch norm as the published models have it, statistics in float32.

    Over a mapped axis, of `jax.pmap`, the statistics are those of all devices' examples.
    """
    # momentum 0.9 is PyTorch's 0.1. The two-pass variance costs little and keeps
    # gradients and Hessian-vector products of small variances accurate.
    return nn.BatchNorm(
        momentum=0.9,
        epsilon=1e-5,
        use_fast_variance=False,
        dtype=dtype,
        axis_name=axis_name,
        name=name,
    )
