"""One program for each turn of a step that alternates."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from uno_jax.training.state import TrainState
from uno_jax.transforms.alternation import AlternateState


class _Turn(NamedTuple):
    """Whose turn it is, and of how many."""

    turn: int
    turns: int


def _alternates(node: Any) -> bool:
    return isinstance(node, AlternateState)


def _map(fn: Callable, *trees: Any) -> Any:
    """Maps a function of the nodes that alternate; all else is of the first tree."""
    return jax.tree.map(
        lambda node, *others: fn(node, *others) if _alternates(node) else node,
        *trees,
        is_leaf=_alternates,
    )


def _turn(node: AlternateState) -> _Turn:
    return _Turn(int(node.count) % len(node.states), len(node.states))


def turns_of(state: TrainState) -> tuple[tuple[int, int], ...]:
    """Of each `alternate` in an optimizer state, whose turn it is, and of how many.

    Args:
      state: with concrete values.

    Returns:
      Pairs (turn, turns), none for a method that does not alternate.
    """
    nodes = jax.tree.leaves(state.opt_state, is_leaf=_alternates)
    return tuple(_turn(node) for node in nodes if _alternates(node))


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


def places_of(opt_state: Any) -> Any:
    """Where the nodes are that every update goes through, in chains and masks, and their turns.

    Another wrapper may keep them from an update, or hand them through a branch.

    Returns:
      A hashable tree for `own_of`, `at_own_turn` and `back_in`.
    """
    if _alternates(opt_state):
        return _turn(opt_state)
    if type(opt_state) is tuple:
        return tuple(map(places_of, opt_state))
    if type(opt_state) is optax.MaskedState:
        return optax.MaskedState(places_of(opt_state.inner_state))
    return None


def _map_places(fn: Callable, places: Any, *trees: Any) -> Any:
    """Maps a function of a turn and the nodes there; all else is of the first tree."""
    if isinstance(places, _Turn):
        return fn(places, *trees)
    if type(places) is tuple:
        return tuple(_map_places(fn, *parts) for parts in zip(places, *trees, strict=True))
    if type(places) is optax.MaskedState:
        inner = (tree.inner_state for tree in (places, *trees))
        return optax.MaskedState(_map_places(fn, *inner))
    return trees[0]


def own_of(state: TrainState, places: Any) -> TrainState:
    """The state of the transformations whose turn it is, as if they were alone."""
    own = _map_places(lambda at, node: node.states[at.turn], places, state.opt_state)
    return state.replace(opt_state=own)


def back_in(after: TrainState, before: TrainState, places: Any) -> TrainState:
    """The state after a step, from what the step made of `own_of` and the state before."""

    def joined(at, own, node):
        states = (*node.states[: at.turn], own, *node.states[at.turn + 1 :])
        return AlternateState(optax.safe_increment(node.count), states)

    opt_state = _map_places(joined, places, after.opt_state, before.opt_state)
    return after.replace(opt_state=opt_state)


def at_own_turn(step: Callable, turns: tuple[tuple[int, int], ...], places: Any) -> Callable:
    """As `at_turn`, from `own_of` a state to that of the next."""

    def whole(at, own):
        states = (own if turn == at.turn else None for turn in range(at.turns))
        return AlternateState(np.int32(at.turn), tuple(states))

    def own(at, node):
        if not isinstance(node.count, np.integer):
            raise ValueError(
                "jit_turns: expected each update to go through every `alternate` of a chain, got "
                "a transformation that may leave one out; compile this step with jax.jit."
            )
        return node.states[at.turn]

    def run(state: TrainState, *batches):
        before = state.replace(opt_state=_map_places(whole, places, state.opt_state))
        after, metrics = at_turn(step, turns)(before, *batches)
        opt_state = _map_places(own, places, after.opt_state)
        return after.replace(opt_state=opt_state), metrics

    return run


def jit_turns(step: Callable) -> Callable:
    """Compiles a step that donates its state, one program for each turn.

    `alternate` inside one program is a branch, and of what is inside a branch or a loop
    XLA's CPU backend runs gradients of convolutions about 12 times as slowly. Here the turn is
    looked up in the state before each step. In chains and under masks the program of a turn
    is that of the transformation alone: UNO-S finds UNO's and surgery's in the compilation
    cache. A step that does not alternate is compiled as by `jax.jit(step, donate_argnums=0)`.

    Args:
      step: `step(state, *batches) -> (state, metrics)`, as `make_unlearning_step` builds it,
        on arrays of one device.

    Returns:
      A function like `step`.

    Raises:
      ValueError: in the function, if a transformation of another kind, with a tuple for a state,
        keeps updates from one that alternates.

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

    @partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
    def compiled(turns, places, state, *batches):
        return at_own_turn(step, turns, places)(state, *batches)

    def run(state, *batches):
        places = places_of(state.opt_state)
        after, metrics = compiled(turns_of(state), places, own_of(state, places), *batches)
        return back_in(after, state, places), metrics

    return run
