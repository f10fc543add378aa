"""The two terms of the evidence lower bound, per example."""

import jax
import jax.numpy as jnp
import optax


def bernoulli_log_likelihood(logits: jax.Array, images: jax.Array) -> jax.Array:
    r"""Log likelihood of images under independent Bernoulli pixels.

    .. math:: \sum_i x_i \log p_i + (1 - x_i) \log (1 - p_i), \quad p = \sigma(\text{logits})

    Args:
      logits: (N, D) float.
      images: (N, D) float in [0, 1]; grey values count as probabilities.

    Returns:
      (N,) float32, in nats, at most 0.
    """
    losses = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), images)
    return -jnp.sum(losses, axis=-1)


def gaussian_kl(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    r"""KL divergence of a diagonal Gaussian from the standard normal.

    .. math:: \tfrac12 \sum_j \mu_j^2 + \sigma_j^2 - 1 - \log \sigma_j^2

    Args:
      mean: (N, K) float.
      log_variance: (N, K) float, the logarithm of the variance.

    Returns:
      (N,) float32, in nats, at least 0.
    """
    mean, log_variance = mean.astype(jnp.float32), log_variance.astype(jnp.float32)
    return 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - 1.0 - log_variance, axis=-1)


def squared_error(means: jax.Array, images: jax.Array) -> jax.Array:
    r"""Squared error of images, summed over their pixels.

    The negative log likelihood of a Gaussian of variance 1/2, up to a constant.

    .. math:: \sum_i (x_i - m_i)^2

    Args:
      means: (N, ...) float.
      images: (N, ...) float, of the same shape.

    Returns:
      (N,) float32, at least 0.
    """
    difference = means.astype(jnp.float32) - images.astype(jnp.float32)
    return jnp.sum(difference**2, axis=tuple(range(1, images.ndim)))
