"""The paper's MNIST VAE: 784-400-2-400-784 with batch norm and Bernoulli output."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from uno_jax.models.elbo import bernoulli_log_likelihood, gaussian_kl

PIXELS = 28 * 28
NORMS = ("batch", "running")


def _batch_norm(name: str) -> nn.BatchNorm:
    # momentum 0.9 is PyTorch's 0.1. The two-pass variance costs little and keeps
    # gradients and Hessian-vector products of small variances accurate.
    return nn.BatchNorm(momentum=0.9, epsilon=1e-5, use_fast_variance=False, name=name)


class Encoder(nn.Module):
    """Images (N, 784) to mean and log variance of the latents, (N, latents) each."""

    hidden: int = 400
    latents: int = 2

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        x = nn.Dense(self.hidden, name="hidden")(images)
        x = nn.relu(_batch_norm("norm")(x, use_running_average=not train))
        return (
            nn.Dense(self.latents, name="mean")(x),
            nn.Dense(self.latents, name="log_variance")(x),
        )


class Decoder(nn.Module):
    """Latents (N, latents) to logits of the pixels, (N, 784)."""

    hidden: int = 400

    @nn.compact
    def __call__(self, latents: jax.Array, *, train: bool) -> jax.Array:
        x = nn.Dense(self.hidden, name="hidden")(latents)
        x = nn.relu(_batch_norm("norm")(x, use_running_average=not train))
        return nn.Dense(PIXELS, name="logits")(x)


class VAEOutput(NamedTuple):
    """What the VAE says of a batch.

    Attributes:
      logits: (N, 784) float, of the reconstruction.
      mean: (N, latents) float, of the posterior.
      log_variance: (N, latents) float, of the posterior.
    """

    logits: jax.Array
    mean: jax.Array
    log_variance: jax.Array


class MnistVAE(nn.Module):
    """The VAE of the paper for 28x28 grey images.

    Attributes:
      hidden: width of the two hidden layers.
      latents: dimension of the latent space.

    References:
      Mandal and Gottwald, UNO, arXiv 2506.04712 (MNIST experiments).
    """

    hidden: int = 400
    latents: int = 2

    def setup(self):
        self.encoder = Encoder(self.hidden, self.latents)
        self.decoder = Decoder(self.hidden)

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


def elbo_terms(output: VAEOutput, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Reconstruction error and KL of each example.

    Args:
      output: what the model said of `images`.
      images: (N, 784) float in [0, 1].

    Returns:
      (N,) binary cross-entropy and (N,) KL, in nats; their sum is the negative
      ELBO estimated with one noise draw.
    """
    return (
        -bernoulli_log_likelihood(output.logits, images),
        gaussian_kl(output.mean, output.log_variance),
    )


def make_vae_loss(model: MnistVAE, *, norm: str = "batch") -> Callable:
    r"""Builds the training loss of the paper, summed over the batch.

    .. math:: \sum_n \text{BCE}(x_n, \hat x_n) + \text{KL}(q(z | x_n) \,\|\, N(0, I))

    Args:
      model: the VAE.
      norm: `"batch"`: batch norm in training mode, the running statistics move,
        as published. `"running"`: batch norm frozen at the running statistics.

    Returns:
      `loss_fn(params, model_state, batch, key) -> (loss, model_state)`, to be used
      with `has_model_state=True`. `batch["image"]` is (N, 784) float in [0, 1],
      `model_state` the collection of batch statistics, the loss in nats per batch.

    Raises:
      ValueError: for an unknown `norm`.
    """
    if norm not in NORMS:
        raise ValueError(f"norm: expected one of {NORMS}, got {norm!r}.")

    def loss_fn(params, model_state, batch, key):
        images = batch["image"]
        noise = jax.random.normal(key, (images.shape[0], model.latents))
        variables = {"params": params, "batch_stats": model_state}
        if norm == "batch":
            output, changed = model.apply(
                variables, images, noise, train=True, mutable=["batch_stats"]
            )
            model_state = changed["batch_stats"]
        else:
            output = model.apply(variables, images, noise, train=False)
        reconstruction, kl = elbo_terms(output, images)
        return jnp.sum(reconstruction) + jnp.sum(kl), model_state

    return loss_fn


def decode(model: MnistVAE, params, model_state, latents: jax.Array) -> jax.Array:
    """Decodes latents to pictures, batch norm at its running statistics.

    Args:
      model: the VAE.
      params: its parameters.
      model_state: its batch statistics.
      latents: (N, latents) float.

    Returns:
      (N, 784) float in [0, 1], the mean of each pixel.
    """
    variables = {"params": params, "batch_stats": model_state}
    return nn.sigmoid(model.apply(variables, latents, method="decode"))


def negative_elbo(
    model: MnistVAE, params, model_state, images: jax.Array, key: jax.Array, *, train: bool = False
) -> jax.Array:
    """Negative ELBO of each image with one noise draw.

    Args:
      model: the VAE.
      params: its parameters.
      model_state: its batch statistics.
      images: (N, 784) float in [0, 1].
      key: PRNG key of the noise.
      train: whether batch norm takes the statistics of `images` instead.

    Returns:
      (N,) float32, nats per image.
    """
    noise = jax.random.normal(key, (images.shape[0], model.latents))
    variables = {"params": params, "batch_stats": model_state}
    output = model.apply(
        variables, images, noise, train=train, mutable=["batch_stats"] if train else False
    )
    reconstruction, kl = elbo_terms(output[0] if train else output, images)
    return reconstruction + kl
