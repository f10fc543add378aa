"""Take turns between transformations, inside one compiled step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


class AlternateState(NamedTuple):
    """State of `alternate`.

    Attributes:
      count: int32 scalar, updates made so far.
      states: tuple, one state per transformation.
    """

    count: jax.Array
    states: tuple[Any, ...]


def alternate(
    *transformations: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Applies the first transformation at the first update, the second at the second.

    And so on, from the beginning again after the last; `alternate(orthogonalize(),
    surgery())` is UNO-S. All are compiled into one program, of which a step runs one
    branch; with `jit_turns` each has a program of its own, which is faster on CPUs if the
    model convolves. A transformation sees only its own turns.

    Args:
      *transformations: at least one; each must return updates like those it is given.

    Returns:
      An Optax transformation that hands its extra arguments on. Its state holds the
      `count` and the `states` of all.

    Raises:
      ValueError: if there is no transformation.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> import uno_jax as uno
      >>> tx = uno.alternate(optax.scale(10.0), optax.identity())
      >>> state, seen = tx.init(jnp.zeros(1)), []
      >>> for _ in range(3):
      ...     updates, state = tx.update(jnp.ones(1), state)
      ...     seen.append(float(updates[0]))
      >>> seen
      [10.0, 1.0, 10.0]

    References:
      Mandal and Gottwald, UNO, arXiv 2506.04712 (UNO-S, AD).
    """
    if not transformations:
        raise ValueError("alternate: expected at least one transformation, got none.")
    parts = [optax.with_extra_args_support(part) for part in transformations]

    def init_fn(params):
        return AlternateState(jnp.zeros((), jnp.int32), tuple(part.init(params) for part in parts))

    def update_fn(updates, state, params=None, **extra_args):
        def branch(turn):
            def apply(states):
                # The extra arguments, functions among them, are closed over.
                result, new = parts[turn].update(updates, states[turn], params, **extra_args)
                return result, (*states[:turn], new, *states[turn + 1 :])

            return apply

        turn = state.count % len(parts)
        branches = [branch(i) for i in range(len(parts))]
        if isinstance(turn, jax.core.Tracer):
            updates, states = jax.lax.switch(turn, branches, state.states)
        else:
            updates, states = branches[int(turn)](state.states)
        # Counted on the host, a known count stays known, and is no part of a program.
        known = isinstance(state.count, np.integer)
        count = state.count + np.int32(1) if known else optax.safe_increment(state.count)
        return updates, AlternateState(count, states)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
