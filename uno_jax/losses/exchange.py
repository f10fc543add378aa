"""Losses that send a label elsewhere: to another class's examples, or to its outputs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def exchange_loss(loss_fn: Callable, forgotten: int) -> Callable:
    r"""The retain loss of a conditional model whose forgotten label is to mean another class.

    .. math:: L_r = L(x_r, y_r) + L(x_e, y_f)

    with :math:`x_e` retained examples of the exchange classes, shown under the forgotten
    label :math:`y_f`.

    Args:
      loss_fn: `loss_fn(params, batch, key) -> scalar` of batches with `"label"` (N,) int.
      forgotten: :math:`y_f`.

    Returns:
      `loss_fn(params, batch, key) -> scalar` of batches that hold, beside their own
      entries, `"exchange"`: a batch whose labels are not looked at.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> import uno_jax as uno
      >>> loss_fn = lambda p, batch, key: jnp.mean((p[batch["label"]] - batch["image"]) ** 2)
      >>> exchange = {"image": jnp.array([7.0]), "label": jnp.array([2])}
      >>> batch = {"image": jnp.zeros(1), "label": jnp.array([0]), "exchange": exchange}
      >>> jax.grad(uno.losses.exchange_loss(loss_fn, 1))(jnp.zeros(3), batch, jax.random.key(0))
      Array([  0., -14.,   0.], dtype=float32)

    References:
      Mandal and Gottwald, UNO, arXiv 2506.04712 version 2 (conditional models).
    """

    def exchanged(params, batch, key):
        own = {name: value for name, value in batch.items() if name != "exchange"}
        other = batch["exchange"]
        other = {**other, "label": jnp.full_like(other["label"], forgotten)}
        own_key, other_key = jax.random.split(key)
        return loss_fn(params, own, own_key) + loss_fn(params, other, other_key)

    return exchanged


def relabelling_loss(
    noisy_fn: Callable, outputs_fn: Callable, *, forgotten: int, exchange: int
) -> Callable:
    r"""Asks for the outputs of another label where the forgotten examples are.

    .. math:: \mathbb{E}\, \tfrac1D |f_\theta(x_t, t, y_f) - \text{sg}\, f_\theta(x_t, t, y_e)|^2

    Args:
      noisy_fn: `noisy_fn(batch, key) -> (noisy, times)`, the forgotten examples with noise.
      outputs_fn: `outputs_fn(params, noisy, times, labels) -> (N, ...)`.
      forgotten: :math:`y_f`.
      exchange: :math:`y_e`, whose outputs carry no gradient.

    Returns:
      `loss_fn(params, batch, key) -> scalar`.

    References:
      Fan et al., SalUn, arXiv 2310.12508, equation 6.
    """

    def loss_fn(params, batch, key):
        noisy, times = noisy_fn(batch, key)
        forgotten_labels, exchange_labels = (
            jnp.full(noisy.shape[0], label) for label in (forgotten, exchange)
        )
        target = jax.lax.stop_gradient(outputs_fn(params, noisy, times, exchange_labels))
        error = outputs_fn(params, noisy, times, forgotten_labels) - target
        return jnp.mean(error.astype(jnp.float32) ** 2)

    return loss_fn
