"""A method made ready to run on one model and its data."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from uno_jax.training.state import TrainState


class Job(NamedTuple):
    """What a recipe returns: everything that a loop needs, and nothing that it has to know.

    Attributes:
      step: `step(state, retain_batch, forget_batch) -> (state, metrics)`, pure, not jitted.
      start: `start(key) -> TrainState`, the original model with a fresh optimizer. Its arrays
        are the caller's own: a loop that donates copies it first, see `uno.training.copy_state`.
      streams: `streams(seed) -> (retain_batches, forget_batches)`, endless iterators that
        depend on the seed alone, so that a resumed run skips what it has seen.
      finish: `finish(state) -> params`, all parameters, as they were handed to the recipe.
      steps: how many steps the recipe makes unless told otherwise.
      cost: gradients and products of single examples in one step, in words, for tables.
    """

    step: Callable
    start: Callable[[jax.Array], TrainState]
    streams: Callable[[int], tuple[Iterator, Iterator]]
    finish: Callable[[TrainState], Any]
    steps: int
    cost: str
