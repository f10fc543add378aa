"""Classifiers of the attributes of faces: two of different architecture."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from uno_jax.models.layers import ConvDown


class AttributeCNN(nn.Module):
    """Strided convolutions, then one layer of features, then a logit per attribute.

    Attributes:
      attributes: how many logits.
      channels: of the 4x4 convolutions of stride 2.
      penultimate: width of the layer before the logits, the features of a Fréchet
        distance.
    """

    attributes: int = 40
    channels: tuple[int, ...] = (32, 64, 128, 256)
    penultimate: int = 128

    def setup(self):
        self.downs = [ConvDown(features) for features in self.channels]
        self.norms = [nn.GroupNorm(num_groups=8) for _ in self.channels]
        self.dense = nn.Dense(self.penultimate)
        self.logits = nn.Dense(self.attributes)

    def embed(self, images: jax.Array) -> jax.Array:
        """Maps (N, H, W, 3) images in [-1, 1] to (N, penultimate) features."""
        x = images
        for down, norm in zip(self.downs, self.norms, strict=True):
            x = nn.relu(norm(down(x)))
        return nn.relu(self.dense(x.reshape(x.shape[0], -1)))

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps (N, H, W, 3) images in [-1, 1] to (N, attributes) logits."""
        return self.logits(self.embed(images))


class AttributeMixer(nn.Module):
    """Patches, mixed along space and along channels in turn: no convolution.

    Attributes:
      attributes: how many logits.
      patch: side of a patch in pixels.
      width: channels of a patch.
      depth: number of blocks.

    References:
      Tolstikhin et al., MLP-Mixer, arXiv 2105.01601.
    """

    attributes: int = 40
    patch: int = 8
    width: int = 192
    depth: int = 4

    def setup(self):
        self.embedding = nn.Dense(self.width)
        self.blocks = [_MixerBlock(2 * self.width) for _ in range(self.depth)]
        self.norm = nn.LayerNorm()
        self.logits = nn.Dense(self.attributes)

    def embed(self, images: jax.Array) -> jax.Array:
        """Maps (N, H, W, 3) images in [-1, 1] to (N, width) features."""
        count, height, width, colours = images.shape
        rows, columns = height // self.patch, width // self.patch
        x = images.reshape(count, rows, self.patch, columns, self.patch, colours)
        x = self.embedding(x.transpose(0, 1, 3, 2, 4, 5).reshape(count, rows * columns, -1))
        for block in self.blocks:
            x = block(x)
        return jnp.mean(self.norm(x), axis=1)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps (N, H, W, 3) images in [-1, 1] to (N, attributes) logits."""
        return self.logits(self.embed(images))


class _MixerBlock(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, x):
        places, channels = x.shape[1:]
        y = nn.LayerNorm()(x).transpose(0, 2, 1)
        y = nn.Dense(places)(nn.gelu(nn.Dense(self.hidden)(y)))
        x = x + y.transpose(0, 2, 1)
        return x + nn.Dense(channels)(nn.gelu(nn.Dense(self.hidden)(nn.LayerNorm()(x))))


def make_attribute_loss(model: nn.Module, *, shift: int = 0) -> Callable:
    """Builds the mean cross-entropy over all attributes.

    Args:
      model: maps (N, H, W, 3) images to (N, attributes) logits.
      shift: largest random translation in pixels, an augmentation; 0 for none.

    Returns:
      `loss_fn(params, batch, key) -> scalar`, with `batch["image"]` (N, H, W, 3) float
      in [-1, 1] and `batch["attributes"]` (N, attributes) bool, in nats per attribute.
    """

    def loss_fn(params, batch, key):
        images = batch["image"]
        if shift:
            offset = jax.random.randint(key, (2,), -shift, shift + 1)
            images = jnp.roll(images, offset, axis=(1, 2))
        logits = model.apply({"params": params}, images)
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, batch["attributes"]))

    return loss_fn
