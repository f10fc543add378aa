"""How the steps of an experiment are run: on one device, on a mesh, or under pmap."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

import jax

import uno_jax as uno
from uno_jax import parallel

Backend = Literal["jit", "pmap"]


class Devices(NamedTuple):
    """How a step is run, and where a state and batches lie for it.

    Attributes:
      axis_name: the mapped axis to build a step with; None but for pmap.
      compile: `compile(step, state)`, the compiled step, which donates its state.
      place: `place(state)`, a state of one device put where the step takes it.
      spread: from batches of this process to those of the step.
      whole: from such a state to one of one device, to look at.
      kept: from such a state to what is saved of it.
      taken: the way back from `kept`.
    """

    axis_name: str | None
    compile: Callable[[Callable, Any], Callable]
    place: Callable[[Any], Any]
    spread: Callable[[Iterable], Iterable]
    whole: Callable[[Any], Any]
    kept: Callable[[Any], Any]
    taken: Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


@functools.lru_cache(maxsize=1)
def _jitted(step: Callable) -> Callable:
    # One seed of a method after the other has the same step.
    return uno.jit_turns(step)


ONE = Devices(
    axis_name=None,
    compile=lambda step, state: _jitted(step),
    place=uno.training.copy_state,
    spread=_same,
    whole=_same,
    kept=_same,
    taken=uno.training.copy_state,
)


def on_mesh(text: str) -> Devices:
    """Batches and large arrays over a mesh such as `"data=4,fsdp=2"`."""
    mesh = parallel.make_mesh(parallel.parse_mesh(text))

    def place(state):
        return parallel.shard_state(mesh, state, parallel.DIT_RULES)

    return Devices(
        axis_name=None,
        compile=lambda step, state: parallel.jit_step(
            step, jax.tree.map(lambda leaf: leaf.sharding, state)
        ),
        place=place,
        spread=lambda batches: (parallel.shard_batch(mesh, batch) for batch in batches),
        whole=parallel.gather,
        kept=_same,
        taken=_same,
    )


def under_pmap() -> Devices:
    """A copy of the state on every device of this process."""
    if jax.process_count() > 1:
        raise ValueError("backend: expected jit with --mesh for several processes, got pmap.")
    return Devices(
        axis_name=parallel.PMAP_AXIS,
        compile=lambda step, state: parallel.pmap_step(step),
        place=parallel.replicate,
        spread=lambda batches: map(parallel.split, batches),
        whole=parallel.unreplicate,
        kept=parallel.unreplicate,
        taken=parallel.replicate,
    )


def choose(mesh: str, backend: Backend) -> Devices:
    """What the options of an experiment say.

    Raises:
      ValueError: for a mesh under pmap, or several processes without a mesh.
    """
    if backend == "pmap":
        if mesh:
            raise ValueError(f"mesh: expected none under pmap, got {mesh!r}.")
        return under_pmap()
    if not mesh and jax.process_count() > 1:
        raise ValueError("mesh: expected one such as 'data=2' for several processes, got none.")
    return on_mesh(mesh) if mesh else ONE


def per_process(make: Callable[..., Iterator]) -> Callable[..., Iterator]:
    """Of batches of several processes, this one's part: `make(..., batch_size=..., ...)`.

    Raises:
      ValueError: in the function, if a batch cannot be divided among the processes.
    """
    count = jax.process_count()
    if count == 1:
        return make

    def shared(*arguments, batch_size, **options):
        if batch_size % count:
            raise ValueError(
                f"batch_size: expected one that {count} processes can share, got {batch_size}."
            )
        return make(
            *arguments, batch_size=batch_size // count, **options, **parallel.shard_of_process()
        )

    return shared
