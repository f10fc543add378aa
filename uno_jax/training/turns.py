"""One program for each turn of a step that alternates."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from uno_jax.training.state import TrainState
from uno_jax.transforms.alternation import AlternateState


def _alternates(node: Any) -> bool:
    return isinstance(node, AlternateState)


def _map(fn: Callable, *trees: Any) -> Any:
    """Maps a function of the nodes that alternate; all else is of the first tree."""
    return jax.tree.map(
        lambda node, *others: fn(node, *others) if _alternates(node) else node,
        *trees,
        is_leaf=_alternates,
    )


def turns_of(state: TrainState) -> tuple[tuple[int, int], ...]:
    """Of each `alternate` in an optimizer state, whose turn it is, and of how many.

    Args:
      state: with concrete values.

    Returns:
      Pairs (turn, turns), none for a method that does not alternate.
    """
    nodes = jax.tree.leaves(state.opt_state, is_leaf=_alternates)
    return tuple(
        (int(node.count) % len(node.states), len(node.states))
        for node in nodes
        if _alternates(node)
    )


def at_turn(step: Callable, turns: tuple[tuple[int, int], ...]) -> Callable:
    """The step of one turn: for states whose turn it is, without the branches of the others.

    Args:
      step: `step(state, *batches) -> (state, metrics)`, not jitted.
      turns: what `turns_of` says of the state.

    Returns:
      A function like `step`.
    """

    def run(state: TrainState, *batches):
        known = iter(turns)
        # A count that is no tracer says at trace time which branch it is.
        fixed = _map(lambda node: node._replace(count=np.int32(next(known)[0])), state.opt_state)
        after, metrics = step(state.replace(opt_state=fixed), *batches)

        def counted(node, before, start):
            return node._replace(count=before.count + (node.count - start.count))

        opt_state = _map(counted, after.opt_state, state.opt_state, fixed)
        return after.replace(opt_state=opt_state), metrics

    return run


def jit_turns(step: Callable) -> Callable:
    """Compiles a step that donates its state, one program for each turn.

    `alternate` inside one program is a branch, and of what is inside a branch or a loop
    XLA's CPU backend runs gradients of convolutions about 12 times as slowly. Here the turn is
    looked up in the state before each step, which waits for the step before. A step that
    does not alternate is compiled as by `jax.jit(step, donate_argnums=0)`.

    Args:
      step: `step(state, *batches) -> (state, metrics)`, as `make_unlearning_step` builds it,
        on arrays of one device.

    Returns:
      A function like `step`.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> import uno_jax as uno
      >>> tx = uno.alternate(optax.scale(-1.0), optax.scale(-0.1))
      >>> loss_fn = lambda params, batch, key: jnp.sum(params * batch)
      >>> step = uno.jit_turns(uno.make_unlearning_step(loss_fn, tx))
      >>> state = uno.create_state(jnp.zeros(1), tx, jax.random.key(0))
      >>> for _ in range(2):
      ...     state, metrics = step(state, jnp.ones(1), jnp.ones(1))
      >>> print(state.params)
      [-1.1]
    """

    @partial(jax.jit, static_argnums=0, donate_argnums=1)
    def compiled(turns, state, *batches):
        return at_turn(step, turns)(state, *batches)

    return lambda state, *batches: compiled(turns_of(state), state, *batches)
