"""Erased Stable Diffusion: push a label's prediction away from what it was."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def erasing_loss(
    noisy_fn: Callable,
    outputs_fn: Callable,
    original: Any,
    *,
    forgotten: int,
    null_label: int,
    guidance: float = 1.0,
) -> Callable:
    r"""The loss of Erased Stable Diffusion for a label.

    .. math:: \mathbb{E}\, \tfrac1D \big| f_\theta(x_t, t, y_f) - f_0(x_t, t, \varnothing)
      + \eta\, [f_0(x_t, t, y_f) - f_0(x_t, t, \varnothing)] \big|^2

    with :math:`f_0` the original model: negative guidance becomes the label's own
    prediction. It needs no images, if `noisy_fn` samples them from the model. Which
    parameters move is the other half of the method: those through which the label comes
    in (ESD-x), or the others (ESD-u), see `uno.trainable`.

    Args:
      noisy_fn: `noisy_fn(params, batch, key) -> (noisy, times)`, in the method as
        published what the model in training samples for the forgotten label, taken out
        in the midst. It carries no gradient.
      outputs_fn: `outputs_fn(params, noisy, times, labels) -> (N, ...)`, the prediction of
        noise, or another one that is linear in it.
      original: parameters of :math:`f_0`.
      forgotten: :math:`y_f`.
      null_label: :math:`\varnothing`.
      guidance: :math:`\eta`, positive.

    Returns:
      `loss_fn(params, batch, key) -> scalar`.

    Raises:
      ValueError: if `guidance` is not positive.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> import uno_jax as uno
      >>> outputs_fn = lambda params, noisy, times, labels: params[labels][:, None] + 0 * noisy
      >>> noisy_fn = lambda params, batch, key: (jnp.zeros((4, 1)), jnp.zeros(4))
      >>> original = jnp.array([1.0, 0.0])
      >>> loss_fn = uno.losses.erasing_loss(
      ...     noisy_fn, outputs_fn, original, forgotten=0, null_label=1)
      >>> float(loss_fn(jnp.array([-1.0, 0.0]), None, jax.random.key(0)))
      0.0

    References:
      Gandikota et al., Erasing concepts from diffusion models, arXiv 2303.07345, equation 7.
    """
    if not guidance > 0:
        raise ValueError(f"guidance: expected a positive number, got {guidance}.")

    def loss_fn(params, batch, key):
        noisy, times = jax.lax.stop_gradient(noisy_fn(params, batch, key))
        labels, none = (jnp.full(noisy.shape[0], label) for label in (forgotten, null_label))
        without = outputs_fn(original, noisy, times, none)
        target = without - guidance * (outputs_fn(original, noisy, times, labels) - without)
        error = outputs_fn(params, noisy, times, labels) - jax.lax.stop_gradient(target)
        return jnp.mean(error.astype(jnp.float32) ** 2)

    return loss_fn
