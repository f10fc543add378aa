"""A moving average of the parameters, kept beside the optimizer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class AverageState(NamedTuple):
    """State of `average_params`.

    Attributes:
      average: pytree like the parameters, their moving average.
      count: int32 scalar, updates seen.
    """

    average: Any
    count: jax.Array


def average_params(decay: float = 0.999) -> optax.GradientTransformationExtraArgs:
    r"""Keeps an exponential moving average of the parameters; updates pass unchanged.

    .. math:: \bar\theta \mapsto d_n \bar\theta + (1 - d_n)(\theta + u), \quad
      d_n = \min\Big(d, \frac{1 + n}{10 + n}\Big)

    with n the updates seen before, so that the average forgets where it began. Put it
    last in a chain, behind the learning rate: it averages what the step will apply.
    Read it with `optax.tree.get(state.opt_state, "average")`.

    Args:
      decay: d, in [0, 1).

    Returns:
      An Optax transformation whose `update` needs `params`.

    Raises:
      ValueError: for a decay out of range; in `update`, without `params`.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> import uno_jax as uno
      >>> tx = optax.chain(optax.sgd(0.5), uno.transforms.average_params(0.9))
      >>> params = jnp.zeros(2)
      >>> updates, state = tx.update(jnp.ones(2), tx.init(params), params)
      >>> optax.tree.get(state, "average")
      Array([-0.45, -0.45], dtype=float32)
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay: expected a number in [0, 1), got {decay}.")

    def init_fn(params):
        return AverageState(jax.tree.map(jnp.copy, params), jnp.zeros((), jnp.int32))

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        if params is None:
            raise ValueError("average_params: expected params in update(...), got None.")
        count = state.count.astype(jnp.float32)
        rate = 1.0 - jnp.minimum(decay, (1.0 + count) / (10.0 + count))

        def leaf(average, p, u):
            # In float32: a rate of 1e-3 is below the resolution of bfloat16.
            wide = average.astype(jnp.float32)
            return (wide + rate * (p + u - wide)).astype(average.dtype)

        average = jax.tree.map(leaf, state.average, params, updates)
        return updates, AverageState(average, state.count + 1)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
