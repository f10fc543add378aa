"""Take a direction into the retained data's Gauss-Newton metric."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from uno_jax import trees


class GaussNewtonState(NamedTuple):
    """State of `scale_by_gauss_newton`.

    Attributes:
      residual: float32 scalar, norm of the last solve's residual over that of the
        right-hand side: 0 for an exact solve.
    """

    residual: jax.Array


def scale_by_gauss_newton(
    damping: float = 0.1, *, iterations: int = 60, tolerance: float = 0.0
) -> optax.GradientTransformationExtraArgs:
    r"""Solves the damped Gauss-Newton system for the incoming updates.

    .. math:: (G + \mu I)\, d = u

    by conjugate gradients, matrix-free. Where UNO keeps a step orthogonal to one
    gradient, this keeps it small in every output that :math:`G` covers: what must
    not move is expensive, what is free to move is cheap.

    Cost per step: `iterations` + 2 Gauss-Newton products (the solver's start and the
    final residual take one each), about one gradient on the batches behind them each.

    Args:
      damping: :math:`\mu > 0`, in units of :math:`G`.
      iterations: most iterations, at least 1.
      tolerance: relative residual at which to stop earlier; 0 for never.

    Returns:
      An Optax transformation whose `update(updates, state, params, *,
      curvature_fn, **extra_args)` takes `curvature_fn(params) -> product`, and
      `product(vector)` returns :math:`G` times a tree like `params`. Solved in
      float32; the result has the dtypes of `updates`, and zero updates stay zero.
      The state holds the relative `residual`.

    Raises:
      ValueError: for a `damping` that is not positive or fewer than 1 iterations;
        in `update`, if `params` is missing.

    Examples:
      >>> import jax.numpy as jnp
      >>> import uno_jax as uno
      >>> tx = uno.transforms.scale_by_gauss_newton(damping=1.0, iterations=5)
      >>> params = jnp.zeros(2)
      >>> curvature_fn = lambda params: lambda v: jnp.array([3.0, 1.0]) * v
      >>> updates = jnp.array([4.0, 4.0])
      >>> tx.update(updates, tx.init(params), params, curvature_fn=curvature_fn)[0].round(3)
      Array([1., 2.], dtype=float32)

    References:
      Martens, Deep learning via Hessian-free optimization, ICML 2010.
    """
    if not damping > 0:
        raise ValueError(f"damping: expected a positive number, got {damping}.")
    if iterations < 1:
        raise ValueError(f"iterations: expected at least 1, got {iterations}.")

    def init_fn(params):
        del params
        return GaussNewtonState(jnp.zeros((), jnp.float32))

    def update_fn(updates, state, params=None, *, curvature_fn: Callable, **extra_args):
        del state, extra_args
        if params is None:
            raise ValueError("scale_by_gauss_newton: expected params in update(...), got None.")
        product = curvature_fn(params)

        def system(vector):
            return trees.add_scaled(
                trees.widen(product(trees.cast_like(vector, params))), damping, vector
            )

        # The norm is divided out, so that the solver's own tests see numbers of order 1.
        right, norm = trees.direction(updates)
        solution, _ = jax.scipy.sparse.linalg.cg(
            system, right, tol=tolerance, atol=0.0, maxiter=iterations
        )
        residual = trees.direction(trees.add_scaled(system(solution), -1.0, right)).norm
        result = jax.tree.map(
            lambda d, u: jnp.where(norm > 0, norm * d, 0.0).astype(jnp.asarray(u).dtype),
            solution,
            updates,
        )
        return result, GaussNewtonState(jnp.where(norm > 0, residual, 0.0).astype(jnp.float32))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
