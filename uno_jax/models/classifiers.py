"""Digit classifiers: the published one, and a convolutional judge."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax


class DigitMLP(nn.Module):
    """A perceptron 784-200-10 with optional batch norm, as published.

    Attributes:
      hidden: width of the hidden layer.
      normalize: whether the hidden layer has batch norm. The published weights
        were trained with it; the published code leaves it out when it judges.

    References:
      Mandal and Gottwald, UNO, arXiv 2506.04712 (MNIST experiments).
    """

    hidden: int = 200
    normalize: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps (N, 784) images in [0, 1] to (N, 10) logits."""
        x = nn.Dense(self.hidden, name="hidden")(images)
        if self.normalize:
            x = nn.BatchNorm(
                use_running_average=not train,
                momentum=0.9,
                epsilon=1e-5,
                use_fast_variance=False,
                name="norm",
            )(x)
        return nn.Dense(10, name="logits")(nn.relu(x))


class DigitCNN(nn.Module):
    """A small convolutional network, the judge.

    Attributes:
      features: channels of the two strided 5x5 convolutions.
      penultimate: width of the layer before the logits, the features of a
        Fréchet distance.
    """

    features: tuple[int, int] = (16, 32)
    penultimate: int = 64

    def setup(self):
        self.first = nn.Conv(self.features[0], (5, 5), strides=(2, 2))
        self.second = nn.Conv(self.features[1], (5, 5), strides=(2, 2))
        self.dense = nn.Dense(self.penultimate)
        self.logits = nn.Dense(10)

    def embed(self, images: jax.Array) -> jax.Array:
        """Maps (N, 784) images in [0, 1] to (N, penultimate) features."""
        x = images.reshape(-1, 28, 28, 1)
        x = nn.relu(self.first(x))
        x = nn.relu(self.second(x))
        return nn.relu(self.dense(x.reshape(x.shape[0], -1)))

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps (N, 784) images in [0, 1] to (N, 10) logits."""
        del train
        return self.logits(self.embed(images))


class DigitDeepMLP(nn.Module):
    """A perceptron of several layers without convolutions, the second judge.

    Attributes:
      widths: of the hidden layers.
    """

    widths: tuple[int, ...] = (1024, 512)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps (N, 784) images in [0, 1] to (N, 10) logits."""
        del train
        x = images
        for width in self.widths:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(10)(x)


def make_classifier_loss(model: nn.Module, *, shift: int = 0) -> Callable:
    """Builds the mean cross-entropy of a classifier without model state.

    Args:
      model: maps (N, 784) images to (N, 10) logits.
      shift: largest random translation in pixels, an augmentation; 0 for none.

    Returns:
      `loss_fn(params, batch, key) -> scalar`, with `batch["image"]` (N, 784) float
      in [0, 1] and `batch["label"]` (N,) int, in nats per image.
    """

    def loss_fn(params, batch, key):
        images = batch["image"]
        if shift:
            images = _translate(images, key, shift)
        logits = model.apply({"params": params}, images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return jnp.mean(losses)

    return loss_fn


def _translate(images, key, shift):
    count = images.shape[0]
    padded = jnp.pad(images.reshape(-1, 28, 28), ((0, 0), (shift, shift), (shift, shift)))
    offsets = jax.random.randint(key, (count, 2), 0, 2 * shift + 1)
    crop = jax.vmap(lambda image, offset: jax.lax.dynamic_slice(image, offset, (28, 28)))
    return crop(padded, offsets).reshape(count, -1)
