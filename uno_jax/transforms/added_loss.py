"""Add the gradient of a further loss to whatever a method descends."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from uno_jax import trees


class AddedLossState(NamedTuple):
    """State of `add_loss`.

    Attributes:
      value: float32 scalar, the added loss before the last step, without its weight.
    """

    value: jax.Array


def add_loss(loss_fn: Callable, weight: float = 1.0) -> optax.GradientTransformationExtraArgs:
    r"""Adds the gradient of a loss of its own to the updates.

    .. math:: u \mapsto u + h\, \nabla \ell(\theta)

    Put it behind a method's direction and in front of the optimizer: every method then
    has its "hat" variant, with `uno.losses.hat_loss`. Cost per step: one gradient of the loss.

    Args:
      loss_fn: `loss_fn(params, model_state, key) -> scalar`.
      weight: :math:`h`.

    Returns:
      An Optax transformation whose `update(updates, state, params, *, model_state, key,
      **extra_args)` keeps the dtypes of `updates`. Its state holds the `value`. Under
      `optax.masked` the loss must accept masked parameters.

    Raises:
      ValueError: in `update`, without `params`, or if the gradient does not match the
        updates.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> import uno_jax as uno
      >>> tx = uno.add_loss(lambda params, model_state, key: jnp.sum(params**2), weight=0.5)
      >>> params = jnp.array([1.0, 2.0])
      >>> tx.update(jnp.ones(2), tx.init(params), params, model_state=None, key=None)[0]
      Array([2., 3.], dtype=float32)
    """

    def init_fn(params):
        del params
        return AddedLossState(jnp.zeros((), jnp.float32))

    def update_fn(updates, state, params=None, *, model_state, key, **extra_args):
        del state, extra_args
        if params is None:
            raise ValueError("add_loss: expected params in update(...), got None.")
        value, grads = jax.value_and_grad(loss_fn)(params, model_state, key)
        trees.check_same_structure(
            grads, updates, tree_name="the gradient of loss_fn", reference_name="updates"
        )
        return trees.add_scaled(updates, weight, grads), AddedLossState(value.astype(jnp.float32))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
