"""The paper's CelebA VAE: strided convolutions down, transposed ones up."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from uno_jax.models.elbo import squared_error
from uno_jax.models.layers import ConvDown, ConvSame, ConvUp, batch_norm
from uno_jax.models.vae import VAEOutput

SLOPE = 0.01


class ConvEncoder(nn.Module):
    """Images (N, side, side, 3) to mean and log variance of the latents."""

    channels: tuple[int, ...]
    latents: int
    form: str = "auto"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        x = images.astype(self.dtype)
        for number, features in enumerate(self.channels):
            x = ConvDown(features, self.form, name=f"down{number}")(x)
            x = batch_norm(f"norm{number}", self.dtype, self.axis_name)(
                x, use_running_average=not train
            )
            x = nn.leaky_relu(x, SLOPE)
        # The two heads are in float32: the log variance is exponentiated.
        x = x.reshape(x.shape[0], -1).astype(jnp.float32)
        return (
            nn.Dense(self.latents, name="mean")(x),
            nn.Dense(self.latents, name="log_variance")(x),
        )


class ConvDecoder(nn.Module):
    """Latents (N, latents) to images (N, side, side, 3) in [-1, 1]."""

    channels: tuple[int, ...]
    side: int
    form: str = "auto"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def setup(self):
        self.input = nn.Dense(self.channels[-1] * self._small**2, dtype=self.dtype)
        widths = (*self.channels[-2::-1], self.channels[0])
        self.ups = [ConvUp(features, self.form, name=f"up{i}") for i, features in enumerate(widths)]
        self.norms = [
            batch_norm(f"norm{i}", self.dtype, self.axis_name) for i in range(len(widths))
        ]
        self.output = ConvSame(3, "auto")

    @property
    def _small(self) -> int:
        return self.side >> len(self.channels)

    def __call__(self, latents: jax.Array, *, train: bool) -> jax.Array:
        return self.draw(self.features(latents, train=train, depth=0), train=train, depth=0)

    def features(self, latents: jax.Array, *, train: bool, depth: int) -> jax.Array:
        """The activations behind `depth` of the transposed convolutions."""
        x = self.input(latents.astype(self.dtype))
        x = x.reshape(x.shape[0], self._small, self._small, self.channels[-1])
        return self._up(x, slice(depth), train)

    def draw(self, x: jax.Array, *, train: bool, depth: int) -> jax.Array:
        """The picture of the activations behind `depth` transposed convolutions."""
        x = self._up(x, slice(depth, None), train)
        return jnp.tanh(self.output(x).astype(jnp.float32))

    def _up(self, x, part, train):
        for up, norm in zip(self.ups[part], self.norms[part], strict=True):
            x = nn.leaky_relu(norm(up(x), use_running_average=not train), SLOPE)
        return x


class ConvVAE(nn.Module):
    """The convolutional VAE of the paper for colour images.

    4x4 convolutions of stride 2, each with batch norm and LeakyReLU(0.01), halve the
    side down to the latents; transposed ones double it again, up to a 3x3 convolution
    and tanh. The loss is the summed squared error, that is the log likelihood of a
    Gaussian of variance 1/2 up to a constant, plus the KL divergence.

    Attributes:
      channels: of the convolutions, from the picture to the latents.
      latents: dimension of the latent space.
      side: of the square images, a multiple of 2 ** len(channels).
      form: of the convolutions, see `conv_down`: the same mathematics, another cost.
      dtype: in which the convolutions compute; parameters, statistics, heads and loss
        stay float32.
      axis_name: a mapped axis, of `jax.pmap`, over which batch norm takes its statistics.

    References:
      Mandal and Gottwald, UNO, arXiv 2506.04712 (CelebA experiments).
    """

    channels: tuple[int, ...] = (32, 64, 128, 256, 512)
    latents: int = 512
    side: int = 64
    form: str = "auto"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None
    pixel_range = (-1.0, 1.0)

    def setup(self):
        if self.side % 2 ** len(self.channels):
            raise ValueError(
                f"side: expected a multiple of {2 ** len(self.channels)}, got {self.side}."
            )
        common = self.form, self.dtype, self.axis_name
        self.encoder = ConvEncoder(self.channels, self.latents, *common)
        self.decoder = ConvDecoder(self.channels, self.side, *common)

    def __call__(self, images: jax.Array, noise: jax.Array, *, train: bool) -> VAEOutput:
        """Encodes, samples the posterior with the given noise, decodes.

        Args:
          images: (N, side, side, 3) float in [-1, 1].
          noise: (N, latents) float, standard normal.
          train: whether batch norm uses the statistics of the batch.

        Returns:
          A `VAEOutput` with (N, side, side, 3) means of the pixels.
        """
        mean, log_variance = self.encoder(images, train=train)
        latents = mean + jnp.exp(0.5 * log_variance) * noise
        return VAEOutput(self.decoder(latents, train=train), mean, log_variance)

    def encode(self, images: jax.Array, *, train: bool = False):
        """Posterior mean and log variance, (N, latents) each, of images in [-1, 1]."""
        return self.encoder(images, train=train)

    def decode(self, latents: jax.Array, *, train: bool = False) -> jax.Array:
        """Pictures (N, side, side, 3) in [-1, 1] of (N, latents) latents."""
        return self.decoder(latents, train=train)

    def features(self, latents: jax.Array, depth: int) -> jax.Array:
        """The decoder's activations behind `depth` transposed convolutions, frozen norm."""
        return self.decoder.features(latents, train=False, depth=depth)

    def error(self, decoded: jax.Array, images: jax.Array) -> jax.Array:
        """Summed squared error of each image, (N,) float32."""
        return squared_error(decoded, images)

    def picture(self, decoded: jax.Array) -> jax.Array:
        """The decoded means themselves, in [-1, 1]."""
        return decoded
