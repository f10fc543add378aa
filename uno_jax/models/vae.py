"""The loss and the pictures of any VAE.

A VAE here is a Flax module with the attributes `latents` and `pixel_range`, with `encode`,
`decode` and a call `(images, noise, train=...)` that returns a `VAEOutput`, and with two
pure functions of what the decoder says: `error(decoded, images)`, (N,) nats, and
`picture(decoded)`.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from uno_jax.models.elbo import gaussian_kl

NORMS = ("batch", "running")


class VAEOutput(NamedTuple):
    """What the VAE says of a batch.

    Attributes:
      decoded: (N, ...) what the decoder says of the reconstruction: logits or means.
      mean: (N, latents) float, of the posterior.
      log_variance: (N, latents) float, of the posterior.
    """

    decoded: jax.Array
    mean: jax.Array
    log_variance: jax.Array


def elbo_terms(
    model: nn.Module, output: VAEOutput, images: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Reconstruction error and KL of each example.

    Args:
      model: the VAE.
      output: what the model said of `images`.
      images: (N, ...) float, as the model takes them.

    Returns:
      (N,) error of the reconstruction and (N,) KL, in nats; their sum is the negative
      ELBO estimated with one noise draw, up to a constant of the model.
    """
    return (
        model.error(output.decoded, images),
        gaussian_kl(output.mean, output.log_variance),
    )


def make_vae_loss(model: nn.Module, *, norm: str = "batch") -> Callable:
    r"""Builds the training loss of the paper, summed over the batch.

    .. math:: \sum_n \text{error}(x_n, \hat x_n) + \text{KL}(q(z | x_n) \,\|\, N(0, I))

    Args:
      model: the VAE.
      norm: `"batch"`: batch norm in training mode, the running statistics move,
        as published. `"running"`: batch norm frozen at the running statistics.

    Returns:
      `loss_fn(params, model_state, batch, key) -> (loss, model_state)`, to be used
      with `has_model_state=True`. `batch["image"]` is (N, ...) float,
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
        reconstruction, kl = elbo_terms(model, output, images)
        return jnp.sum(reconstruction) + jnp.sum(kl), model_state

    return loss_fn


def decode(model: nn.Module, params, model_state, latents: jax.Array) -> jax.Array:
    """Decodes latents to pictures, batch norm at its running statistics.

    Args:
      model: the VAE.
      params: its parameters.
      model_state: its batch statistics.
      latents: (N, latents) float.

    Returns:
      (N, ...) float, the mean of each pixel in the range of the images.
    """
    variables = {"params": params, "batch_stats": model_state}
    return model.picture(model.apply(variables, latents, method="decode"))


def negative_elbo(
    model: nn.Module, params, model_state, images: jax.Array, key: jax.Array, *, train: bool = False
) -> jax.Array:
    """Negative ELBO of each image with one noise draw.

    Args:
      model: the VAE.
      params: its parameters.
      model_state: its batch statistics.
      images: (N, ...) float, as the model takes them.
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
    reconstruction, kl = elbo_terms(model, output[0] if train else output, images)
    return reconstruction + kl
