"""Use the second moment of retain gradients: as a metric, and as a pull."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from uno_jax import trees


def _check(second_moment, updates):
    return trees.aligned(
        second_moment, updates, tree_name="second_moment", reference_name="updates"
    )


def scale_by_second_moment(
    second_moment: Any,
    *,
    damping: float = 0.1,
    power: float = 0.5,
    root_mean_square: float | None = None,
) -> optax.GradientTransformation:
    r"""Divides the updates by a power of the retain gradients' second moment.

    .. math:: u \mapsto (v + \delta^2 \bar v)^{-p}\, u

    with :math:`v` the mean square of retain gradients and :math:`\bar v` its mean over
    all parameters: the diagonal of the retained Fisher matrix as a metric, where
    `scale_by_gauss_newton` takes the whole of it. Parameters that retained data use
    move little. Costs nothing per step.

    Args:
      second_moment: pytree like the parameters, at least 0: from `uno.training.second_moment`,
        or what Adam holds in a training checkpoint (`optax.tree.get(state, "nu")`).
      damping: :math:`\delta \ge 0`.
      power: :math:`p`; ½ measured better than 1, the full Fisher.
      root_mean_square: if given, the result is scaled to that root mean square over all
        parameters: the size of the step no longer depends on the size of the gradient.

    Returns:
      An Optax transformation without state. Computed in float32, in the dtypes of
      `updates`; where the metric is zero the update is zero, and zero updates stay zero.

    Raises:
      ValueError: for a negative `damping` or a `power` that is not positive; in
        `update`, if `second_moment` does not match the updates.

    Examples:
      >>> import jax.numpy as jnp
      >>> import uno_jax as uno
      >>> tx = uno.transforms.scale_by_second_moment(jnp.array([4.0, 1.0]), damping=0.0)
      >>> tx.update(jnp.array([2.0, 2.0]), tx.init(jnp.zeros(2)))[0]
      Array([1., 2.], dtype=float32)
    """
    if not damping >= 0:
        raise ValueError(f"damping: expected a number of at least 0, got {damping}.")
    if not power > 0:
        raise ValueError(f"power: expected a positive number, got {power}.")

    def update_fn(updates, state, params=None):
        del params
        moment = trees.widen(_check(second_moment, updates))
        count = max(1, sum(leaf.size for leaf in jax.tree.leaves(moment)))
        mean = trees.dot(moment, jax.tree.map(jnp.ones_like, moment)) / count

        def divide(u, v):
            metric = v + damping**2 * mean
            safe = jnp.where(metric > 0, metric, 1.0)
            return jnp.where(metric > 0, u.astype(safe.dtype) * safe**-power, 0.0)

        scaled = jax.tree.map(divide, updates, moment)
        if root_mean_square is not None:
            unit, _ = trees.direction(scaled)
            scaled = optax.tree.scale(root_mean_square * count**0.5, unit)
        return trees.cast_like(scaled, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update_fn)


class PullState(NamedTuple):
    """State of `pull_to_start`.

    Attributes:
      start: the parameters at `init`.
    """

    start: Any


def pull_to_start(second_moment: Any, weight: float) -> optax.GradientTransformation:
    r"""Adds a Fisher-weighted pull to the parameters a run started from.

    .. math:: u \mapsto u + \lambda F \odot (\theta - \theta_0)

    the gradient of :math:`\frac{\lambda}{2} \sum_i F_i (\theta_i - \theta_{0,i})^2`, the
    elastic weight consolidation of Selective Amnesia.

    Args:
      second_moment: :math:`F`, pytree like the parameters, at least 0.
      weight: :math:`\lambda \ge 0`.

    Returns:
      An Optax transformation; `init` keeps the parameters it is given as
      :math:`\theta_0`, `update` needs `params`. None leaves and masked nodes are passed
      over.

    Raises:
      ValueError: for a negative `weight`; in `update`, without `params` or if
        `second_moment` does not match the updates.

    Examples:
      >>> import jax.numpy as jnp
      >>> import uno_jax as uno
      >>> tx = uno.transforms.pull_to_start(jnp.array([2.0, 0.0]), weight=3.0)
      >>> state = tx.init(jnp.zeros(2))
      >>> tx.update(jnp.zeros(2), state, jnp.array([1.0, 1.0]))[0]
      Array([6., 0.], dtype=float32)

    References:
      Heng and Soh, Selective Amnesia, arXiv 2305.10120, equation 8.
    """
    if not weight >= 0:
        raise ValueError(f"weight: expected a number of at least 0, got {weight}.")

    def update_fn(updates, state, params=None):
        if params is None:
            raise ValueError("pull_to_start: expected params in update(...), got None.")
        moment = _check(second_moment, updates)
        away = trees.combine(1.0, params, -1.0, state.start)
        pull = jax.tree.map(lambda f, d: f.astype(d.dtype) * d, moment, away)
        return trees.add_scaled(updates, weight, pull), state

    return optax.GradientTransformation(PullState, update_fn)
