"""Inception-v3 features for FID, from the weights of the reference implementation.

The weights are the user's: the converted `pt_inception-2015-12-05` file, as npz or
safetensors, with its own names (`Mixed_5b.branch1x1.conv.weight`, ...). Its network
differs from the usual Inception-v3 in its pooling: averages leave the padding out, and
the last block takes a maximum.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

SIDE = 299
FEATURES = 2048
EPSILON = 1e-3
CHUNK = 50
_PARTS = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")


def inception_features(weights: Mapping[str, jax.Array], images: jax.Array) -> jax.Array:
    """The features behind the last pooling, of which FID takes the Fréchet distance.

    Args:
      weights: arrays by the names of the reference, convolutions (O, I, H, W).
      images: (N, H, W, 3) float in [-1, 1]; resized to 299x299, bilinear without
        antialiasing, as the reference does.

    Returns:
      (N, 2048) float32.

    Raises:
      ValueError: if a weight is missing or has another shape, naming it.

    References:
      Heusel et al., GANs trained by a two time-scale update rule, arXiv 1706.08500;
      Szegedy et al., Rethinking the Inception architecture, arXiv 1512.00567.
    """

    def conv(x, name, features, kernel, stride, padding):
        shapes = _shapes(name, x.shape[-1], features, kernel)
        for part, shape in shapes.items():
            found = np.shape(weights[part]) if part in weights else "nothing"
            if found != shape:
                raise ValueError(f"inception: expected shape {shape} at {part}, got {found}.")
        kernel, scale, bias, mean, variance = (weights[part] for part in shapes)
        x = jax.lax.conv_general_dilated(
            x, jnp.asarray(kernel), (stride, stride), padding, dimension_numbers=_LAYOUT
        )
        factor = jnp.asarray(scale) / jnp.sqrt(jnp.asarray(variance) + EPSILON)
        return jax.nn.relu((x - mean) * factor + bias)

    shape = (images.shape[0], SIDE, SIDE, 3)
    x = jax.image.resize(images.astype(jnp.float32), shape, "bilinear", antialias=False)
    return _network(x, conv)


def inception_embedder(weights: Mapping[str, jax.Array]) -> Callable:
    """Inception's features of any number of images, `CHUNK` at a time.

    Args:
      weights: see `inception_features`.

    Returns:
      From (N, H, W, 3) float in [-1, 1] to (N, 2048) float32.
    """
    apply = jax.jit(inception_features)

    def embed(images):
        parts = [apply(weights, images[i : i + CHUNK]) for i in range(0, len(images), CHUNK)]
        return np.concatenate(parts)

    return embed


def inception_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights that `inception_features` reads."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(x, name, features, kernel, stride, padding):
        shapes.update(_shapes(name, x.shape[-1], features, kernel))
        weight = jnp.zeros((features, x.shape[-1], *kernel))
        return jax.lax.conv_general_dilated(
            x, weight, (stride, stride), padding, dimension_numbers=_LAYOUT
        )

    jax.eval_shape(lambda x: _network(x, conv), jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), "float32"))
    return shapes


_LAYOUT = ("NHWC", "OIHW", "NHWC")


def _shapes(name, inputs, features, kernel):
    shapes = [(features, inputs, *kernel), *[(features,)] * 4]
    return {f"{name}.{part}": shape for part, shape in zip(_PARTS, shapes, strict=True)}


def _network(x: jax.Array, conv: Callable) -> jax.Array:
    """The network, given how to make a convolution with batch norm and ReLU."""

    def chain(x, block, *layers):
        for name, features, kernel in layers:
            x = conv(x, f"{block}.{name}", features, kernel, 1, "SAME")
        return x

    x = conv(x, "Conv2d_1a_3x3", 32, (3, 3), 2, "VALID")
    x = conv(x, "Conv2d_2a_3x3", 32, (3, 3), 1, "VALID")
    x = _max(conv(x, "Conv2d_2b_3x3", 64, (3, 3), 1, "SAME"))
    x = conv(x, "Conv2d_3b_1x1", 80, (1, 1), 1, "VALID")
    x = _max(conv(x, "Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"))
    for block, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
        x = _joined(
            chain(x, block, ("branch1x1", 64, (1, 1))),
            chain(x, block, ("branch5x5_1", 48, (1, 1)), ("branch5x5_2", 64, (5, 5))),
            chain(x, block, *_double(64, 96), ("branch3x3dbl_3", 96, (3, 3))),
            chain(_average(x), block, ("branch_pool", pooled, (1, 1))),
        )
    x = _joined(
        conv(x, "Mixed_6a.branch3x3", 384, (3, 3), 2, "VALID"),
        conv(
            chain(x, "Mixed_6a", *_double(64, 96)),
            "Mixed_6a.branch3x3dbl_3",
            96,
            (3, 3),
            2,
            "VALID",
        ),
        _max(x),
    )
    for block, c in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        wide, tall = (1, 7), (7, 1)
        single = [("branch7x7_1", c, (1, 1)), ("branch7x7_2", c, wide), ("branch7x7_3", 192, tall)]
        widths, kernels = (c, c, c, c, 192), ((1, 1), tall, wide, tall, wide)
        double = [
            (f"branch7x7dbl_{i}", *layer)
            for i, layer in enumerate(zip(widths, kernels, strict=True), start=1)
        ]
        x = _joined(
            chain(x, block, ("branch1x1", 192, (1, 1))),
            chain(x, block, *single),
            chain(x, block, *double),
            chain(_average(x), block, ("branch_pool", 192, (1, 1))),
        )
    block = "Mixed_7a"
    single = chain(x, block, ("branch3x3_1", 192, (1, 1)))
    mixed = [("branch7x7x3_1", (1, 1)), ("branch7x7x3_2", (1, 7)), ("branch7x7x3_3", (7, 1))]
    double = chain(x, block, *[(name, 192, kernel) for name, kernel in mixed])
    x = _joined(
        conv(single, f"{block}.branch3x3_2", 320, (3, 3), 2, "VALID"),
        conv(double, f"{block}.branch7x7x3_4", 192, (3, 3), 2, "VALID"),
        _max(x),
    )
    for block, pool in (("Mixed_7b", _average), ("Mixed_7c", lambda x: _max(x, 1, "SAME"))):
        single = chain(x, block, ("branch3x3_1", 384, (1, 1)))
        double = chain(x, block, *_double(448, 384))
        x = _joined(
            chain(x, block, ("branch1x1", 320, (1, 1))),
            chain(single, block, ("branch3x3_2a", 384, (1, 3))),
            chain(single, block, ("branch3x3_2b", 384, (3, 1))),
            chain(double, block, ("branch3x3dbl_3a", 384, (1, 3))),
            chain(double, block, ("branch3x3dbl_3b", 384, (3, 1))),
            chain(pool(x), block, ("branch_pool", 192, (1, 1))),
        )
    return jnp.mean(x, axis=(1, 2))


def _double(first, second):
    return ("branch3x3dbl_1", first, (1, 1)), ("branch3x3dbl_2", second, (3, 3))


def _joined(*branches):
    return jnp.concatenate(branches, axis=-1)


def _window(x, start, operation, stride, padding):
    return jax.lax.reduce_window(x, start, operation, (1, 3, 3, 1), (1, stride, stride, 1), padding)


def _max(x, stride=2, padding="VALID"):
    return _window(x, -jnp.inf, jax.lax.max, stride, padding)


def _average(x):
    """Mean of 3x3 neighbours, those outside left out."""
    count = _window(jnp.ones((1, *x.shape[1:3], 1)), 0.0, jax.lax.add, 1, "SAME")
    return _window(x, 0.0, jax.lax.add, 1, "SAME") / count
