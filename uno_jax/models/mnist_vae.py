"""The paper's MNIST VAE: 784-400-2-400-784 with batch norm and Bernoulli output."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from uno_jax.models.elbo import bernoulli_log_likelihood
from uno_jax.models.layers import batch_norm
from uno_jax.models.vae import VAEOutput

PIXELS = 28 * 28


class Encoder(nn.Module):
    """Images (N, 784) to mean and log variance of the latents, (N, latents) each."""

    hidden: int = 400
    latents: int = 2
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        x = nn.Dense(self.hidden, name="hidden")(images)
        x = nn.relu(batch_norm("norm", axis_name=self.axis_name)(x, use_running_average=not train))
        return (
            nn.Dense(self.latents, name="mean")(x),
            nn.Dense(self.latents, name="log_variance")(x),
        )


class Decoder(nn.Module):
    """Latents (N, latents) to logits of the pixels, (N, 784)."""

    hidden: int = 400
    axis_name: str | None = None

    @nn.compact
    def __call__(self, latents: jax.Array, *, train: bool) -> jax.Array:
        x = nn.Dense(self.hidden, name="hidden")(latents)
        x = nn.relu(batch_norm("norm", axis_name=self.axis_name)(x, use_running_average=not train))
        return nn.Dense(PIXELS, name="logits")(x)


class MnistVAE(nn.Module):
    """The VAE of the paper for 28x28 grey images.

    Attributes:
      hidden: width of the two hidden layers.
      latents: dimension of the latent space.
      axis_name: a mapped axis, of `jax.pmap`, over which batch norm takes its statistics.

    References:
      Mandal and Gottwald, UNO, arXiv 2506.04712 (MNIST experiments).
    """

    hidden: int = 400
    latents: int = 2
    axis_name: str | None = None
    pixel_range = (0.0, 1.0)

    def setup(self):
        self.encoder = Encoder(self.hidden, self.latents, self.axis_name)
        self.decoder = Decoder(self.hidden, self.axis_name)

    def __call__(self, images: jax.Array, noise: jax.Array, *, train: bool) -> VAEOutput:
        """Encodes, samples the posterior with the given noise, decodes.

        Args:
          images: (N, 784) float in [0, 1].
          noise: (N, latents) float, standard normal.
          train: whether batch norm uses the statistics of the batch.

        Returns:
          A `VAEOutput`.
        """
        mean, log_variance = self.encoder(images, train=train)
        latents = mean + jnp.exp(0.5 * log_variance) * noise
        return VAEOutput(self.decoder(latents, train=train), mean, log_variance)

    def encode(self, images: jax.Array, *, train: bool = False):
        """Posterior mean and log variance, (N, latents) each, of (N, 784) images."""
        return self.encoder(images, train=train)

    def decode(self, latents: jax.Array, *, train: bool = False) -> jax.Array:
        """Pixel logits (N, 784) of (N, latents) latents."""
        return self.decoder(latents, train=train)

    def error(self, decoded: jax.Array, images: jax.Array) -> jax.Array:
        """Binary cross-entropy of each image, (N,) float32 in nats, given the logits."""
        return -bernoulli_log_likelihood(decoded, images)

    def picture(self, decoded: jax.Array) -> jax.Array:
        """The mean of each pixel, in [0, 1], given the logits."""
        return nn.sigmoid(decoded)
