"""From the start of a process to a model that forgot, on disk, beside PyTorch.

    pip install '.[bench]'
    python -m benchmarks.whole_job --output benchmarks/results

Three steps of UNO on the MNIST VAE: imports, weights and data from files, compilation, steps,
and weights to a file. Cold is with an empty compilation cache, warm with one that the same
job has filled before; exported is the program written once by `jax.export`. The kinds take turns.
"""

import dataclasses
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro

from benchmarks import output, problems, timing
from benchmarks.jobs import jax_job
from experiments import common
from uno_jax import foreign


@dataclasses.dataclass(frozen=True)
class Options:
    """Time whole jobs beside PyTorch."""

    rounds: int = 5
    """How often each kind of job is run, after once that is not counted."""
    weights: Path | None = None
    """An npz of a trained MNIST VAE, in PyTorch's names; else one is initialised."""
    output: Path | None = None
    """A folder for whole_job.json and .md."""


def prepare(folder: Path, weights: Path | None) -> tuple[Path, Path]:
    """Writes weights, if none are given, and data."""
    if weights is None:
        problem = problems.get_problem("mnist_vae")
        variables = {"params": problem.params, "batch_stats": problem.model_state}
        weights = folder / "weights.npz"
        np.savez(weights, **foreign.to_torch(variables, foreign.MNIST_VAE))
    shape = 2, jax_job.STEPS, jax_job.BATCH, 784
    images = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    np.savez(folder / "data.npz", retain=images[0], forget=images[1])
    return weights, folder / "data.npz"


def run(module: str, *arguments: Path | str, cache: Path | None = None) -> float:
    """Seconds of a job in a process of its own.

    Raises:
      RuntimeError: with what it said, if it failed.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")}
    if cache is not None:
        environment |= {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.jobs.{module}", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{module}: expected to end well, got {done.returncode}: {done.stderr}")
    return seconds


def main(options: Options) -> list[dict]:
    """Prints the table and returns its lines."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = prepare(folder, options.weights)
        program = folder / "program"
        run("jax_job", *inputs, program, "--export")
        kinds = {
            "PyTorch, eager": lambda: run("torch_job", *inputs, folder / "torch.npz"),
            "uno_jax, cold": lambda: run(
                "jax_job", *inputs, folder / "jax.npz", cache=Path(tempfile.mkdtemp(dir=folder))
            ),
            "uno_jax, warm": lambda: run(
                "jax_job", *inputs, folder / "jax.npz", cache=folder / "cache"
            ),
            "uno_jax, exported, warm": lambda: run(
                "exported_job", *inputs, folder / "exported.npz", program, cache=folder / "cache"
            ),
        }
        times = timing.interleaved(kinds, rounds=options.rounds)
        results = [np.load(folder / f"{kind}.npz") for kind in ("jax", "exported")]
        for entry in results[0].files:
            np.testing.assert_allclose(results[0][entry], results[1][entry], rtol=1e-5, atol=1e-6)
    lines = [
        {
            "method": kind,
            **timing.spread(own),
            "pytorch_over_this": float(np.median(times["PyTorch, eager"] / own)),
        }
        for kind, own in times.items()
    ]
    rows = [
        {
            "job": line["method"],
            "seconds": f"{line['median_ms'] / 1e3:.2f}",
            "10 to 90 %": f"{line['low_ms'] / 1e3:.2f} to {line['high_ms'] / 1e3:.2f}",
            "times as fast as PyTorch": f"{line['pytorch_over_this']:.2f}",
        }
        for line in lines
    ]
    common.print_table(rows)
    if options.output:
        facts = output.about(torch=importlib.metadata.version("torch"))
        output.save(options.output, "whole_job", lines, rows, facts=facts)
    return lines


if __name__ == "__main__":
    main(tyro.cli(Options))
