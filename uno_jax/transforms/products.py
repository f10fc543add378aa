"""Products of a loss's Hessian with a vector, given its gradient function."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from uno_jax import trees

DIFFERENCE_STEP = 3e-6
"""Length of the step of a finite difference, relative to the parameters."""


def exact(grad_fn: Callable, params: Any, vector: Any) -> Any:
    """Forward over reverse: as exact as the gradient, and twice its products."""
    return jax.jvp(grad_fn, (params,), (trees.cast_like(vector, params),))[1]


def finite_difference(grad_fn: Callable, params: Any, vector: Any) -> Any:
    r"""One more gradient, a small step along the vector.

    .. math:: H v \approx \frac{|v|}{h} \big(\nabla L(\theta + h \hat v) - \nabla L(\theta)\big),
      \quad h = 3 \cdot 10^{-6} |\theta|

    Rounding asks for a large step and curvature for a small one; at this one the two are of
    the same size for smooth networks in float32. Across the kinks of ReLU there is no limit
    to approach, and in bfloat16 the step vanishes.

    Raises:
      ValueError: if parameters have fewer digits than float32.
    """
    for path, leaf in jax.tree.flatten_with_path(params)[0]:
        if jnp.finfo(leaf.dtype).eps > jnp.finfo(jnp.float32).eps:
            raise ValueError(
                "finite-difference: expected parameters of float32 or more, got "
                f"{leaf.dtype} at {trees.path_name(path)!r}."
            )
    unit, length = trees.direction(vector)
    size = trees.direction(params).norm
    h = DIFFERENCE_STEP * jnp.where(size > 0, size, 1.0)
    ahead = grad_fn(trees.cast_like(trees.add_scaled(params, h, unit), params))
    return trees.combine(length / h, ahead, -length / h, grad_fn(params))


HESSIANS: dict[str, Callable] = {"exact": exact, "finite-difference": finite_difference}
"""Ways to take a product, `product(grad_fn, params, vector)`."""
