"""Compiled programs, timed in turn."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import uno_jax as uno
from uno_jax.training.turns import at_turn, turns_of


class Program(NamedTuple):
    """A compiled program and its arguments.

    Attributes:
      run: a function without arguments that returns when the result is there.
      compile_seconds: what lowering and compilation took, without any cache.
      flops: of one step, by XLA's count behind its passes: what two parts of a program have
        in common counts once. Of several turns the mean.
      temporary_bytes: the compiler's plan, beside arguments and results; the largest turn's.
      resident_bytes: arguments and results.
      steps: how many a run makes.
    """

    run: Callable[[], Any]
    compile_seconds: float
    flops: float
    temporary_bytes: int
    resident_bytes: int
    steps: int = 1


def compile_program(function: Callable, *arguments: Any) -> Program:
    """Compiles a function for its arguments, past every cache; each run has the same ones."""
    with without_cache():
        compiled, seconds = _compile(jax.jit(function), *arguments)
    return _program([compiled], seconds, lambda: jax.block_until_ready(compiled(*arguments)))


def compile_steps(steps: Mapping[Any, tuple[Callable, Any]], *batches: Any) -> dict[Any, Program]:
    """Compiles steps as loops use them, past every cache and as many at a time as there are cores.

    The state is donated, and each run goes on from the state of the one before. Each turn of a
    step that alternates is a program, see `uno.jit_turns`.

    Args:
      steps: name to step and first state, which is copied.
      *batches: what each step is given besides.

    Returns:
      Name to program; `compile_seconds` are those beside the others.
    """

    def prepare(step, state):
        state = uno.copy_state(state)
        first = turns_of(state)
        compiled, seconds = [], 0.0
        for later in range(math.lcm(*(count for _, count in first))):
            there = tuple(((turn + later) % count, count) for turn, count in first)
            program = jax.jit(at_turn(step, there), donate_argnums=0)
            program, own = _compile(program, state, *batches)
            compiled.append(program)
            seconds += own
        return _program(compiled, seconds, _threaded(compiled, state, batches))

    with without_cache(), ThreadPoolExecutor(os.cpu_count()) as pool:
        pending = {name: pool.submit(prepare, *pair) for name, pair in steps.items()}
        return {name: future.result() for name, future in pending.items()}


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
    """Compiles inside it keep and read no program on disk."""
    caching = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", caching)


def _threaded(compiled, state, batches) -> Callable[[], Any]:
    def run():
        nonlocal state
        for program in compiled:
            state, metrics = program(state, *batches)
        return jax.block_until_ready((state, metrics))

    return run


def _compile(jitted, *arguments):
    start = time.perf_counter()
    compiled = jitted.lower(*arguments).compile()
    return compiled, time.perf_counter() - start


def _program(compiled: list, seconds: float, run: Callable[[], Any]) -> Program:
    memory = [program.memory_analysis() for program in compiled]
    flops = [(program.cost_analysis() or {}).get("flops", np.nan) for program in compiled]
    return Program(
        run=run,
        compile_seconds=seconds,
        flops=float(np.mean(flops)),
        temporary_bytes=max(plan.temp_size_in_bytes for plan in memory),
        resident_bytes=max(
            plan.argument_size_in_bytes + plan.output_size_in_bytes for plan in memory
        ),
        steps=len(compiled),
    )


def interleaved(
    programs: Mapping[Any, Callable[[], Any]], *, rounds: int, seconds: float = float("inf")
) -> dict[Any, np.ndarray]:
    """Times every program once per round, so that drift of the machine hits all alike.

    Args:
      programs: functions that block until their result is there.
      rounds: at most so many, after one that is not counted.
      seconds: no further round is begun after so many, once there are two.

    Returns:
      Milliseconds of each, (rounds,).
    """
    times: dict[Any, list[float]] = {name: [] for name in programs}
    for run in programs.values():
        run()
    begin = time.perf_counter()
    for number in range(rounds):
        if number >= 2 and time.perf_counter() - begin > seconds:
            break
        for name, run in programs.items():
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: np.array(values) for name, values in times.items()}


def spread(times: np.ndarray) -> dict[str, float]:
    """Median and the 10 and 90 per cent points, in milliseconds, and how many there were."""
    low, median, high = np.percentile(times, (10, 50, 90))
    return {
        "median_ms": float(median),
        "low_ms": float(low),
        "high_ms": float(high),
        "fastest_ms": float(times.min()),
        "rounds": len(times),
    }


def matmul_peak(side: int = 2048, repeats: int = 5) -> float:
    """The machine's best at a square float32 product, in FLOP/s."""
    a = jnp.ones((side, side), jnp.float32)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, a))
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(product(a, a))
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
