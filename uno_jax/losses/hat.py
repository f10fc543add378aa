"""The "hat" term: generated classes shall be uniform over the classes kept."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp

EPSILON = 1e-8


def hat_divergence(logits: jax.Array, forgotten: int | Collection[int]) -> jax.Array:
    r"""Divergence of the mean class probabilities from uniform over the kept classes.

    .. math:: \sum_k q_k \log \frac{q_k + \epsilon}{t_k + \epsilon}, \quad
      q = \frac1N \sum_n \operatorname{softmax}(\ell_n), \quad \epsilon = 10^{-8}

    with :math:`t_k` zero for a forgotten class and uniform over the others.

    Args:
      logits: (N, K) float, what a classifier says of N generated samples.
      forgotten: the forgotten class or classes, each from 0 to K - 1.

    Returns:
      A float32 scalar in nats; about 0 where the kept classes are equally frequent and
      the forgotten ones absent, at most about 18.4.

    Raises:
      ValueError: if a class is out of range, or none is kept.

    Examples:
      >>> import jax.numpy as jnp
      >>> import uno_jax as uno
      >>> float(uno.losses.hat_divergence(jnp.log(jnp.array([[0.5, 0.0001, 0.5]])), 1).round(2))
      0.0

    References:
      Mandal and Gottwald, UNO, arXiv 2506.04712 (the variants with a hat).
    """
    classes = logits.shape[-1]
    gone = set(forgotten) if isinstance(forgotten, Collection) else {int(forgotten)}
    if not gone <= set(range(classes)) or len(gone) == classes:
        raise ValueError(
            f"forgotten: expected some, not all, of the classes 0 to {classes - 1}, "
            f"got {sorted(gone)}."
        )
    q = jnp.mean(jax.nn.softmax(logits.astype(jnp.float32), axis=-1), axis=0)
    target = jnp.array([0.0 if k in gone else 1.0 / (classes - len(gone)) for k in range(classes)])
    return jnp.sum(q * (jnp.log(q + EPSILON) - jnp.log(target + EPSILON)))


def hat_loss(
    classify: Callable[[jax.Array], jax.Array],
    sample_fn: Callable[[Any, Any, jax.Array], jax.Array],
    forgotten: int | Collection[int],
) -> Callable:
    """Builds the "hat" loss of a generative model, for `uno.add_loss`.

    A classifier that takes part here must not judge the result.

    Args:
      classify: from (N, ...) samples to (N, K) logits, differentiable.
      sample_fn: `sample_fn(params, model_state, key) -> (N, ...) samples`.
      forgotten: the forgotten class or classes.

    Returns:
      `loss_fn(params, model_state, key) -> scalar`, `hat_divergence` of the samples.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> import uno_jax as uno
      >>> classify = lambda images: images @ jnp.eye(3)
      >>> sample_fn = lambda params, model_state, key: jnp.tile(params, (4, 1))
      >>> hat = uno.add_loss(uno.losses.hat_loss(classify, sample_fn, forgotten=1), weight=1e3)
      >>> tx = optax.chain(uno.surgery(), hat, optax.adam(1e-3))
    """

    def loss_fn(params, model_state, key):
        return hat_divergence(classify(sample_fn(params, model_state, key)), forgotten)

    return loss_fn
