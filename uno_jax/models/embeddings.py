"""Times, labels and places as vectors, for diffusion models."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

SMALL = nn.initializers.normal(0.02)
"""As the diffusion transformer has them."""


def waves(values: jax.Array, size: int, *, longest: float = 10_000.0) -> jax.Array:
    """Cosines and sines of values at frequencies that fall geometrically.

    Args:
      values: (N,) numbers, such as times of 0 to 1000.
      size: of the result, even.
      longest: wavelength of the last pair over 2 pi.

    Returns:
      (N, size) float32, cosines first.
    """
    half = size // 2
    frequencies = jnp.exp(-math.log(longest) * jnp.arange(half) / half)
    angles = values.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def positions(width: int, rows: int, columns: int) -> jax.Array:
    """Fixed vectors of the places in a grid, row by row.

    Args:
      width: of a vector, divisible by 4: a quarter each for sine and cosine of the
        column, then of the row.
      rows: of the grid.
      columns: of the grid.

    Returns:
      (rows * columns, width) float32.
    """
    frequencies = 1.0 / 10_000.0 ** (np.arange(width // 4) / (width // 4))

    def waves_of(places):
        angles = places.reshape(-1, 1) * frequencies
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)

    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    return jnp.asarray(np.concatenate([waves_of(column), waves_of(row)], axis=-1), jnp.float32)


class TimeEmbedding(nn.Module):
    """A perceptron over waves.

    Attributes:
      width: of the result.
      waves: how many cosines and sines.
      initial: of both kernels.
    """

    width: int
    waves: int = 256
    initial: Callable = SMALL

    @nn.compact
    def __call__(self, times: jax.Array) -> jax.Array:
        """Maps (N,) times to (N, width), float32."""
        dense = functools.partial(nn.Dense, self.width, kernel_init=self.initial)
        return dense(name="out")(nn.silu(dense(name="hidden")(waves(times, self.waves))))


class LabelEmbedding(nn.Module):
    """A table of vectors.

    Attributes:
      count: number of labels, the one that stands for none included.
      width: of a vector.
      initial: of the table.
    """

    count: int
    width: int
    initial: Callable = SMALL

    @nn.compact
    def __call__(self, labels: jax.Array) -> jax.Array:
        """Maps (N,) labels to (N, width), float32."""
        table = self.param("table", self.initial, (self.count, self.width))
        return table[labels]
