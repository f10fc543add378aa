"""The steps of methods as programs: the gradients, which they share, and what is their own."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import optax

import uno_jax as uno
from benchmarks import problems, timing
from uno_jax.training.turns import at_turn, turns_of

SHARED = "gradients"
# A turn that takes products is long to compile, and is that of the method it is taken from:
# compiled and timed apart, UNO-S was within 3 % of the mean of UNO and surgery.
SAME = {("uno-s", 0): ("uno", 0)}


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
    batches: tuple[Any, Any],
    *,
    whole: bool = False,
    known: dict | None = None,
) -> Parts:
    """Compiles methods as loops use them, past every cache, as many at a time as there are cores.

    The state is donated, and each run goes on from the state of the one before. Each turn of a
    step that alternates is a program, see `uno.jit_turns`; of one that takes no products, what
    it does with the gradients, see `uno.make_gradients`. The first turn of UNO-S is UNO's
    program if that is there too.

    Args:
      problem: the model, whose parameters are copied.
      methods: names of the table of methods.
      batches: the retain and the forget batch.
      whole: whether every step is a program of its own, from batches to state.
      known: programs that do not depend on the batch are kept here and taken from here.
    """
    known = {} if known is None else known
    gradients = uno.make_gradients(problem.loss_fn, has_model_state=problem.has_model_state)
    bare = problems.first_state(problem, optax.identity()).replace(opt_state=())
    found = jax.eval_shape(gradients, bare, *batches)
    slots: dict[str, Any] = {}

    def run_gradients(compiled):
        slots[SHARED] = jax.block_until_ready(compiled(bare, *batches))

    def prepare_gradients():
        # Nothing is donated: the state is the same for all.
        compiled, seconds = timing.compile_for(gradients, bare, *batches)
        program = timing.make_program(compiled, seconds, partial(run_gradients, compiled))
        return {SHARED: program}, {SHARED: ((SHARED,),)}

    def run_turn(method, compiled, alone):
        given = (slots[SHARED],) if alone else batches
        slots[method], metrics = compiled(slots[method], *given)
        return jax.block_until_ready((slots[method], metrics))

    def prepare(method):
        tx, descend = problems.transformation(problem, method)
        step, state = problems.make_step(problem, method)
        update = uno.make_update(tx, descend=descend)
        slots[method] = state = uno.copy_state(state)
        programs, turns = {}, []
        first = turns_of(state)
        for later in range(math.lcm(*(count for _, count in first))):
            there = tuple(((turn + later) % count, count) for turn, count in first)
            key, own = (method, later), at_turn(update, there)
            same = None if whole else SAME.get(key)
            if same and same[0] in methods:
                turns.append((same,))
                continue
            alone = not whole and method != "retain-descent" and _needs_no_batch(own, state, found)
            if not alone:
                made = timing.compile_for(at_turn(step, there), state, *batches, donate_argnums=0)
            elif key in known:
                made = known[key]
            else:
                made = known[key] = timing.compile_for(own, state, found, donate_argnums=0)
            run = partial(run_turn, method, made[0], alone)
            programs[key] = timing.make_program(*made, run)
            turns.append((SHARED, key) if alone else (key,))
        return programs, {method: tuple(turns)}

    jobs = [] if whole else [prepare_gradients]
    jobs += [partial(prepare, method) for method in methods]
    with timing.without_cache(), ThreadPoolExecutor(os.cpu_count()) as pool:
        made = [pending.result() for pending in [pool.submit(job) for job in jobs]]
    programs, turns = ({k: v for part in made for k, v in part[i].items()} for i in (0, 1))
    return Parts(programs, turns)


def _needs_no_batch(update, state, found) -> bool:
    """Whether what follows the gradients takes no products of them."""
    try:
        jax.eval_shape(update, state, found)
    except ValueError as error:
        if "takes products" in str(error):
            return False
        raise
    return True
