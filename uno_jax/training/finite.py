"""Which leaves of a state are no longer numbers."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uno_jax import trees


class NonFiniteError(ArithmeticError):
    """A state or a step that holds NaN or infinity."""


def some_of(names: list[str]) -> str:
    """The first of many names, and how many more there are."""
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


@jax.jit
def _finite(leaves):
    return [jnp.all(jnp.isfinite(leaf)) for leaf in leaves]


def non_finite_leaves(tree: Any) -> list[str]:
    """The paths of floating-point leaves that hold NaN or infinity.

    Args:
      tree: any pytree; leaves that are not floating-point are passed over.

    Returns:
      Paths such as `"params/decoder/kernel"`, in the order of the tree.

    Examples:
      >>> import jax.numpy as jnp
      >>> import uno_jax as uno
      >>> uno.training.non_finite_leaves({"a": jnp.ones(2), "b": jnp.array([1.0, jnp.nan])})
      ['b']
    """
    named = [
        (trees.path_name(path), leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
    ]
    leaves = [leaf for _, leaf in named]
    if trees.on_host(leaves):
        # Nothing to compile.
        finite = [np.isfinite(np.asarray(leaf)).all() for leaf in leaves]
    else:
        finite = jax.device_get(_finite(leaves))
    return [name for (name, _), fine in zip(named, finite, strict=True) if not fine]


def check_finite_row(row: dict[str, Any], names: Iterable[str], state: Any) -> None:
    """Checks metrics of a step.

    Args:
      row: of a history, with its `step`.
      names: of the metrics in it to look at.
      state: after that step or a later one; what is not finite in it is named.

    Raises:
      NonFiniteError: naming the step, the metrics and the leaves of the state.
    """
    values = jax.device_get({name: row[name] for name in names})
    wrong = [f"{name} {float(value)}" for name, value in values.items() if not np.isfinite(value)]
    if wrong:
        leaves = non_finite_leaves(state)
        places = f"not finite is the state at {some_of(leaves)}" if leaves else "finite state"
        raise NonFiniteError(f"step {row['step']}: {', '.join(wrong)}; {places}.")
