"""The steps of methods as programs: the gradients, which they share, and what is their own."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import optax

import uno_jax as uno
from benchmarks import problems, timing
from uno_jax.training.turns import at_turn, turns_of

SHARED = "gradients"
# Turns that are another method's step: compiled and timed apart, UNO-S was within 3 % of the
# mean of UNO and surgery.
SAME = {
    ("uno-s", 0): ("uno", 0),
    ("uno-s", 1): ("surgery", 0),
    ("ascent-descent", 0): ("ascent", 0),
}


class Parts(NamedTuple):
    """Programs to be timed, and the steps that are made of them.

    Attributes:
      programs: by name: `gradients`, and those of a method, (method, turn).
      turns: of each method the names of the programs of each of its turns, in order; and of
        `gradients`, which stands for itself.
    """

    programs: Mapping[Any, timing.Program]
    turns: Mapping[str, Sequence[tuple[Any, ...]]]

    def step(self, method: str, of: Callable[[Any], Any]) -> Any:
        """A quantity of a method's step, of those of its programs: the mean over its turns."""
        return sum(of(name) for turn in self.turns[method] for name in turn) / len(
            self.turns[method]
        )

    def compile_seconds(self, method: str) -> float:
        """Of the programs of its steps, without the gradients that methods share."""
        own = {turn[-1] for turn in self.turns[method]}
        return sum(self.programs[name].compile_seconds for name in own)

    def temporary_bytes(self, method: str) -> int:
        """The largest program's; gradients that one hands to the other are among them."""
        sizes = []
        for turn in self.turns[method]:
            handed = self.programs[SHARED].result_bytes if SHARED in turn else 0
            sizes += [self.programs[name].temporary_bytes + handed for name in turn]
        return max(sizes)


def compile_parts(
    problem: problems.Problem,
    methods: Sequence[str],
    batches: Mapping[int, tuple[Any, Any]],
    *,
    whole: bool = False,
) -> dict[int, Parts]:
    """Compiles methods as loops use them, past every cache, as many at a time as there are cores.

    The state is donated, and each run goes on from the state of the one before. Each turn of a
    step that alternates is a program, see `uno.jit_turns`; of one that takes no products, what
    it does with the gradients, see `uno.training.make_gradients`, compiled once for all batch
    sizes. A turn that is another method's step is that one's program if it is there too.

    Args:
      problem: the model, whose parameters are copied.
      methods: names of the table of methods.
      batches: by batch size, the retain and the forget batch.
      whole: whether every step is a program of its own, from batches to state.

    Returns:
      By batch size, the parts of the steps.
    """
    gradients = uno.training.make_gradients(
        problem.loss_fn, has_model_state=problem.has_model_state
    )
    bare = problems.first_state(problem, optax.identity()).replace(opt_state=())
    found = jax.eval_shape(gradients, bare, *next(iter(batches.values())))
    slots: dict[str, Any] = {}
    own: dict[str, list[tuple[str, int]]] = {}
    with timing.without_cache(), ThreadPoolExecutor(os.cpu_count()) as pool:
        # Nothing is donated: the state is the same for all. Before the updates, also when they
        # are run: those are handed the gradients.
        pending: dict[Any, Future] = {}
        if not whole:
            for size, pair in batches.items():
                pending[size, SHARED] = pool.submit(timing.compile_for, gradients, bare, *pair)
        # While the first are compiled, the next are prepared.
        for method in methods:
            slots[method], own[method], programs = _plan(problem, method, methods, found, whole)
            for key, function, takes_batches in programs:
                for size in batches if takes_batches else (None,):
                    given = batches[size] if takes_batches else (found,)
                    pending[size, key] = pool.submit(
                        timing.compile_for, function, slots[method], *given, donate_argnums=0
                    )
        made = {name: future.result() for name, future in pending.items()}

    def run(size, key, compiled):
        if key == SHARED:
            slots[SHARED] = jax.block_until_ready(compiled(bare, *batches[size]))
            return slots[SHARED]
        method, given = key[0], (slots[SHARED],) if size is None else batches[size]
        slots[method], metrics = compiled(slots[method], *given)
        return jax.block_until_ready((slots[method], metrics))

    parts: dict[int, dict] = {size: {} for size in batches}
    for (of, key), (compiled, seconds) in made.items():
        program = timing.make_program(compiled, seconds, partial(run, of, key, compiled))
        for size in batches if of is None else (of,):
            parts[size][key] = program
    turns: dict[str, Sequence[tuple[Any, ...]]] = {} if whole else {SHARED: ((SHARED,),)}
    for method, keys in own.items():
        turns[method] = tuple((SHARED, key) if (None, key) in made else (key,) for key in keys)
    return {size: Parts(programs, turns) for size, programs in parts.items()}


def _plan(problem, method: str, methods: Sequence[str], found, whole: bool):
    """What is to be compiled for a method.

    Returns:
      The state it begins with; by (method, turn) the programs of its turns; and of those that
      are not another's, that name, the function, and whether it takes batches, not gradients.
    """
    tx, descend = problems.transformation(problem, method)
    step, state = problems.make_step(problem, method)
    update = uno.training.make_update(tx, descend=descend)
    # The control makes no use of the forget gradient.
    entire = whole or method == "retain-descent"
    # Of several turns one may take none; without any, none need be traced to know.
    products = uno.methods.get_method(method).products
    first = turns_of(state)
    keys, programs = [], []
    for later in range(math.lcm(*(count for _, count in first))):
        there = tuple(((turn + later) % count, count) for turn, count in first)
        key, alone = (method, later), at_turn(update, there)
        same = None if whole else SAME.get(key)
        if same and same[0] in methods:
            key = same
        elif entire or (products and not _needs_no_batch(alone, state, found)):
            programs.append((key, at_turn(step, there), True))
        else:
            programs.append((key, alone, False))
        keys.append(key)
    return uno.training.copy_state(state), keys, programs


def _needs_no_batch(update, state, found) -> bool:
    """Whether what follows the gradients takes no products of them."""
    try:
        jax.eval_shape(update, state, found)
    except ValueError as error:
        if "takes products" in str(error):
            return False
        raise
    return True
