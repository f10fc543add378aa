"""Scale a step so that an objective does not rise."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

FACTORS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.06, 0.03)


class LineSearchState(NamedTuple):
    """State of `line_search`.

    Attributes:
      step_size: float32 scalar, the factor of the last step; 0 if none helped.
      value: float32 scalar, the objective after the last step.
    """

    step_size: jax.Array
    value: jax.Array


def line_search(factors: Sequence[float] = FACTORS) -> optax.GradientTransformationExtraArgs:
    """Scales the updates by the factor at which an objective is smallest.

    The factors are tried from the largest down, until the objective, once below
    where it started, rises again. If none lowers it the updates become zero: the
    objective never rises. Cost: at most one evaluation per factor and one more.

    Args:
      factors: positive and descending.

    Returns:
      An Optax transformation whose `update(updates, state, params, *, value_fn,
      **extra_args)` takes `value_fn(params) -> scalar`, the objective on a batch
      that the step was not computed from. The updates must already point
      downhill. Non-finite values count as infinitely bad.

    Raises:
      ValueError: if the factors are not positive and descending; in `update`, if
        `params` is missing.

    Examples:
      >>> import jax.numpy as jnp
      >>> import uno_jax as uno
      >>> tx = uno.transforms.line_search((1.0, 0.5, 0.25))
      >>> params = jnp.array(1.0)
      >>> updates, state = tx.update(
      ...     jnp.array(-4.0), tx.init(params), params, value_fn=lambda p: p**2)
      >>> float(updates), float(state.step_size)
      (-1.0, 0.25)
    """
    steps = tuple(float(factor) for factor in factors)
    if not steps or steps[-1] <= 0 or any(b >= a for a, b in pairwise(steps)):
        raise ValueError(f"factors: expected positive and descending numbers, got {steps}.")

    def init_fn(params):
        del params
        return LineSearchState(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))

    def update_fn(updates, state, params=None, *, value_fn: Callable, **extra_args):
        del state, extra_args
        if params is None:
            raise ValueError("line_search: expected params in update(...), got None.")
        table = jnp.asarray(steps, jnp.float32)

        def scaled(factor):
            return jax.tree.map(lambda u: (factor * u).astype(jnp.asarray(u).dtype), updates)

        def value_at(factor):
            value = value_fn(optax.apply_updates(params, scaled(factor)))
            return jnp.where(jnp.isfinite(value), value, jnp.inf).astype(jnp.float32)

        start = jnp.asarray(value_fn(params), jnp.float32)

        def unfinished(carry):
            index, _, best_value, last = carry
            past_the_minimum = (best_value < start) & (last > best_value)
            return (index < len(steps)) & ~past_the_minimum

        def try_next(carry):
            index, best, best_value, _ = carry
            value = value_at(table[index])
            better = value < best_value
            return (
                index + 1,
                jnp.where(better, table[index], best),
                jnp.where(better, value, best_value),
                value,
            )

        zero = jnp.zeros((), jnp.float32)
        _, best, best_value, _ = jax.lax.while_loop(
            unfinished, try_next, (jnp.zeros((), jnp.int32), zero, start, start)
        )
        return scaled(best), LineSearchState(best, best_value)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
