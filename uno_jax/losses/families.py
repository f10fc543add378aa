"""Output families: how far two outputs are apart, and the metric of that distance."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Family(NamedTuple):
    """A divergence between outputs and its Fisher metric.

    Attributes:
      divergence: `divergence(target, outputs) -> (N,)`, at least 0, and 0 where
        the two are equal; in nats for the families here.
      fisher: `fisher(outputs, tangent) -> cotangent`, the Hessian of the
        divergence with respect to the outputs, where they equal the target,
        times a tangent. Trees of the structure of the outputs.
    """

    divergence: Callable[[Any, Any], jax.Array]
    fisher: Callable[[Any, Any], Any]


def _per_example(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    return jnp.sum(x.reshape(x.shape[0], -1), axis=-1)


def bernoulli() -> Family:
    r"""Independent Bernoulli outputs, given as logits.

    .. math:: \text{KL} = \sum_i t_i \log\frac{t_i}{p_i} + (1 - t_i)\log\frac{1 - t_i}{1 - p_i},
      \quad F = p (1 - p)

    Returns:
      A `Family` over logits (N, ...).
    """

    def divergence(target, logits):
        difference = jax.nn.softplus(logits) - jax.nn.softplus(target)
        return _per_example(difference - jax.nn.sigmoid(target) * (logits - target))

    def fisher(logits, tangent):
        p = jax.nn.sigmoid(logits)
        return p * (1.0 - p) * tangent

    return Family(divergence, fisher)


def gaussian(scale: float = 1.0) -> Family:
    r"""Gaussian outputs of one fixed standard deviation, given as means.

    .. math:: \text{KL} = \frac{|t - m|^2}{2 \sigma^2}, \quad F = 1 / \sigma^2

    Args:
      scale: the standard deviation, positive, in units of the outputs.

    Returns:
      A `Family` over means (N, ...).

    Raises:
      ValueError: if `scale` is not positive.
    """
    if not scale > 0:
        raise ValueError(f"scale: expected a positive number, got {scale}.")

    def divergence(target, mean):
        return _per_example((target - mean) ** 2) / (2.0 * scale**2)

    def fisher(mean, tangent):
        del mean
        return tangent / scale**2

    return Family(divergence, fisher)


def diagonal_gaussian() -> Family:
    r"""Gaussians with diagonal covariance, given as (mean, log variance).

    .. math:: \text{KL} = \tfrac12 \sum_j v_j - v^t_j - 1
      + e^{v^t_j - v_j} + (m_j - m^t_j)^2 e^{-v_j}, \quad
      F_m = e^{-v}, \; F_v = \tfrac12

    Returns:
      A `Family` over pairs of (N, K) arrays.
    """

    def divergence(target, outputs):
        (target_mean, target_v), (mean, v) = target, outputs
        spread = v - target_v - 1.0 + jnp.exp(target_v - v)
        return 0.5 * _per_example(spread + (mean - target_mean) ** 2 * jnp.exp(-v))

    def fisher(outputs, tangent):
        _, v = outputs
        return tangent[0] * jnp.exp(-v), 0.5 * tangent[1]

    return Family(divergence, fisher)
