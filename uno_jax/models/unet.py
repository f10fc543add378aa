"""The U-Net of DDPM, conditioned on time and label."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from uno_jax.models.embeddings import LabelEmbedding, TimeEmbedding


class _Norm(nn.Module):
    """Group norm in float32, in groups of at least 4 channels."""

    dtype: Any

    @nn.compact
    def __call__(self, x):
        groups = min(32, max(1, x.shape[-1] // 4))
        while x.shape[-1] % groups:
            groups -= 1
        return nn.GroupNorm(groups, dtype=jnp.float32, name="group")(x).astype(self.dtype)


class ResidualBlock(nn.Module):
    """Two convolutions around a condition, beside a shortcut.

    Attributes:
      channels: of the result.
      dropout: rate, applied when `train`.
      dtype: of the computation; norms are float32.
    """

    channels: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array, train: bool = False) -> jax.Array:
        """Maps (N, H, W, C) and (N, width) conditions to (N, H, W, channels)."""
        conv = _conv(self.dtype)
        y = conv(self.channels, 3, name="first")(nn.silu(_Norm(self.dtype, name="norm_first")(x)))
        modulation = nn.Dense(2 * self.channels, dtype=self.dtype, name="modulation")(
            nn.silu(condition)
        )
        scale, shift = jnp.split(modulation[:, None, None], 2, axis=-1)
        y = nn.silu(_Norm(self.dtype, name="norm_second")(y) * (1.0 + scale) + shift)
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        y = conv(self.channels, 3, name="second", zero=True)(y)
        if x.shape[-1] != self.channels:
            x = conv(self.channels, 1, name="shortcut")(x)
        return x + y


class SelfAttention(nn.Module):
    """Attention over the places of an image, beside a shortcut.

    Attributes:
      heads: number of heads, a divisor of the channels.
      dtype: of the computation; logits and softmax are float32.
    """

    heads: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (N, H, W, C) to the same shape."""
        batch, height, width, channels = x.shape
        y = _Norm(self.dtype, name="norm")(x).reshape(batch, height * width, channels)
        y = nn.Dense(3 * channels, dtype=self.dtype, name="qkv")(y)
        y = y.reshape(batch, height * width, 3, self.heads, -1)
        y = jax.nn.dot_product_attention(y[:, :, 0], y[:, :, 1], y[:, :, 2])
        zeros = nn.initializers.zeros
        y = nn.Dense(channels, kernel_init=zeros, dtype=self.dtype, name="projection")(
            y.reshape(batch, height * width, channels)
        )
        return x + y.reshape(x.shape)


class UNet(nn.Module):
    """A convolutional network down to coarse images and up again, with skip connections.

    Sides of an image must be divisible by 2 to the number of levels minus 1, in patches: 32x32 with
    the defaults, which are those published for CIFAR-10 with a condition on labels; 28x28
    with three levels.

    Attributes:
      width: channels of the finest level.
      multipliers: channels of each level, in widths.
      blocks: residual blocks per level, on the way down; one more on the way up.
      attention: levels with attention, counted from 0, the finest.
      heads: of the attention.
      classes: number of labels; label `classes` stands for none.
      learned_variance: whether there are twice the channels in the output.
      patch: side of the squares whose pixels are the channels of one place, inside: a
        large image costs as one of a `patch`-th of its sides.
      dropout: rate inside the residual blocks, when `train`.
      dtype: of the computation; parameters are float32.
      remat: whether a residual block's inside is computed again in the backward pass.

    References:
      Ho et al., DDPM, arXiv 2006.11239, appendix B; scale and shift by the condition as
      Dhariwal and Nichol, arXiv 2105.05233; patches as Hoogeboom et al., Simple diffusion,
      arXiv 2301.11093.
    """

    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (1,)
    heads: int = 1
    classes: int = 10
    learned_variance: bool = False
    patch: int = 1
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False

    @property
    def null_label(self) -> int:
        """The label that stands for none."""
        return self.classes

    @nn.compact
    def __call__(
        self, noisy: jax.Array, times: jax.Array, labels: jax.Array, *, train: bool = False
    ) -> jax.Array:
        """Maps (N, H, W, C) images, (N,) times and (N,) labels to (N, H, W, C or 2C)."""
        coarse = self.patch * 2 ** (len(self.multipliers) - 1)
        if noisy.shape[1] % coarse or noisy.shape[2] % coarse:
            raise ValueError(f"UNet: expected sides that {coarse} divides, got {noisy.shape[1:3]}.")
        conv = _conv(self.dtype)
        block = nn.remat(ResidualBlock, static_argnums=(3,)) if self.remat else ResidualBlock
        time, label = condition_embeddings(self.classes, 4 * self.width)
        condition = (time(times) + label(labels)).astype(self.dtype)

        def stage(x, level, name):
            channels = self.width * self.multipliers[level]
            x = block(channels, self.dropout, self.dtype, name=name)(x, condition, train)
            if level in self.attention:
                x = SelfAttention(self.heads, self.dtype, name=f"{name}_attention")(x)
            return x

        x = conv(self.width, 3, name="input")(to_patches(noisy, self.patch).astype(self.dtype))
        skips = [x]
        levels = range(len(self.multipliers))
        for level in levels:
            for i in range(self.blocks):
                x = stage(x, level, f"down_{level}_{i}")
                skips.append(x)
            if level != levels[-1]:
                x = conv(x.shape[-1], 3, name=f"down_{level}_halve", strides=2)(x)
                skips.append(x)

        channels = x.shape[-1]
        x = block(channels, self.dropout, self.dtype, name="middle_0")(x, condition, train)
        x = SelfAttention(self.heads, self.dtype, name="middle_attention")(x)
        x = block(channels, self.dropout, self.dtype, name="middle_1")(x, condition, train)

        for level in reversed(levels):
            for i in range(self.blocks + 1):
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                x = stage(x, level, f"up_{level}_{i}")
            if level:
                x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
                x = conv(x.shape[-1], 3, name=f"up_{level}_double")(x)
        x = nn.silu(_Norm(jnp.float32, name="norm_output")(x))
        channels = noisy.shape[-1] * (2 if self.learned_variance else 1)
        x = _conv(jnp.float32)(self.patch**2 * channels, 3, name="output", zero=True)(x)
        return from_patches(x, self.patch)


def condition_embeddings(classes, width):
    """Of times, and of labels with one for none.

    Convolutions hear a condition only through scales and shifts: with vectors as small as
    those of the transformer they learn the label late.
    """
    return (
        TimeEmbedding(width, initial=nn.initializers.lecun_normal(), name="time"),
        LabelEmbedding(classes + 1, width, initial=nn.initializers.normal(1.0), name="label"),
    )


def to_patches(x, patch):
    """(N, H, W, C) to (N, H / patch, W / patch, patch² C)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return x.swapaxes(2, 3).reshape(batch, height // patch, width // patch, -1)


def from_patches(x, patch):
    """The way back."""
    batch, rows, columns, _ = x.shape
    x = x.reshape(batch, rows, columns, patch, patch, -1).swapaxes(2, 3)
    return x.reshape(batch, rows * patch, columns * patch, -1)


def _conv(dtype):
    def make(channels, size, name, *, strides=1, zero=False):
        initial = nn.initializers.zeros if zero else nn.initializers.xavier_uniform()
        return nn.Conv(channels, (size, size), strides, kernel_init=initial, dtype=dtype, name=name)

    return make
