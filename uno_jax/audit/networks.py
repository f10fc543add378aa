"""The networks of the audit's own judges."""

import flax.linen as nn
import jax


class JudgeCNN(nn.Module):
    """A small convolutional network on pictures.

    Attributes:
      classes: number of logits.
      shape: (H, W, C) of a picture.
      features: width of the layer that Fréchet distances are taken in.
    """

    classes: int
    shape: tuple[int, int, int]
    features: int = 64

    def setup(self):
        sizes = (16, 32, 64) if max(self.shape[:2]) > 40 else (16, 32)
        self.layers = [nn.Conv(size, (5, 5), strides=(2, 2)) for size in sizes]
        self.hidden, self.logits = nn.Dense(self.features), nn.Dense(self.classes)

    def embed(self, images: jax.Array) -> jax.Array:
        """Maps (N, ...) images to (N, features)."""
        x = images.reshape(-1, *self.shape)
        for layer in self.layers:
            x = nn.relu(layer(x))
        return nn.relu(self.hidden(x.reshape(len(x), -1)))

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps (N, ...) images to (N, classes) logits."""
        return self.logits(self.embed(images))


class JudgePerceptron(nn.Module):
    """A perceptron on anything.

    Attributes:
      classes: number of logits.
      widths: of the hidden layers; the last are the features.
    """

    classes: int
    widths: tuple[int, ...] = (512, 64)

    def setup(self):
        self.layers = [nn.Dense(width) for width in self.widths]
        self.logits = nn.Dense(self.classes)

    def embed(self, images: jax.Array) -> jax.Array:
        """Maps (N, ...) images to (N, features)."""
        x = images.reshape(len(images), -1)
        for layer in self.layers:
            x = nn.relu(layer(x))
        return x

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps (N, ...) images to (N, classes) logits."""
        return self.logits(self.embed(images))


def picture_shape(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """(H, W, C) of images of a shape, also of flattened squares; None if they are none."""
    if len(shape) == 3 and min(shape[:2]) >= 8:
        return shape
    if len(shape) == 2 and min(shape) >= 8:
        return (*shape, 1)
    if len(shape) == 1:
        for channels in (1, 3):
            side = round((shape[0] / channels) ** 0.5)
            if side >= 8 and side * side * channels == shape[0]:
                return side, side, channels
    return None
