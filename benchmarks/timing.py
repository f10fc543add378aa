"""Compiled programs, timed in turn."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Program(NamedTuple):
    """A compiled program and its arguments.

    Attributes:
      run: a function without arguments that returns when the result is there.
      compile_seconds: what lowering and compilation took, without any cache.
      flops: by XLA's count behind its passes: what two parts of a program have in common
        counts once. NaN on a GPU, whose count leaves out what other libraries do.
      temporary_bytes: the compiler's plan, beside arguments and results.
      resident_bytes: arguments and results.
      result_bytes: results alone.
    """

    run: Callable[[], Any]
    compile_seconds: float
    flops: float
    temporary_bytes: int
    resident_bytes: int
    result_bytes: int


def compile_program(function: Callable, *arguments: Any) -> Program:
    """Compiles a function for its arguments, past every cache; each run has the same ones."""
    with without_cache():
        compiled, seconds = compile_for(function, *arguments)
    return make_program(compiled, seconds, lambda: jax.block_until_ready(compiled(*arguments)))


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
    """Compiles inside it keep and read no program on disk."""
    caching = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", caching)


def compile_for(function: Callable, *arguments: Any, **options: Any) -> tuple[Any, float]:
    """Returns a function compiled for its arguments, and the seconds it took.

    Args:
      function: not jitted.
      *arguments: or their shapes.
      **options: of `jax.jit`.
    """
    start = time.perf_counter()
    compiled = jax.jit(function, **options).lower(*arguments).compile()
    return compiled, time.perf_counter() - start


def make_program(compiled: Any, seconds: float, run: Callable[[], Any]) -> Program:
    """A compiled function with what the compiler says of it.

    Args:
      compiled: what `compile_for` returns.
      seconds: that it took.
      run: runs it, without arguments, until the result is there.
    """
    memory = compiled.memory_analysis()
    cost = compiled.cost_analysis() if jax.default_backend() == "cpu" else None
    return Program(
        run=run,
        compile_seconds=seconds,
        flops=(cost or {}).get("flops", float("nan")),
        temporary_bytes=memory.temp_size_in_bytes,
        resident_bytes=memory.argument_size_in_bytes + memory.output_size_in_bytes,
        result_bytes=memory.output_size_in_bytes,
    )


def interleaved(
    programs: Mapping[Any, Callable[[], Any]], *, rounds: int, seconds: float = float("inf")
) -> dict[Any, np.ndarray]:
    """Times every program once per round, so that drift of the machine hits all alike.

    Args:
      programs: functions that block until their result is there.
      rounds: at most so many, after one that is not counted.
      seconds: no further round is begun after so many from the beginning, once there are two.

    Returns:
      Milliseconds of each, (rounds,).
    """
    times: dict[Any, list[float]] = {name: [] for name in programs}
    begin = time.perf_counter()
    for run in programs.values():
        run()
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


def matmul_peak(side: int | None = None, repeats: int = 5, dtype: str = "float32") -> float:
    """The machine's best at a square product of that type, in FLOP/s; a GPU's sides are longer."""
    side = side or (2048 if jax.default_backend() == "cpu" else 8192)
    a = jax.random.normal(jax.random.key(0), (side, side), jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, a))
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(product(a, a))
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
