"""Step times of every gradient method, per model and batch size.

    python -m benchmarks.step_time --models mnist_vae,celeba_vae,unet,dit_s --methods all \
        --batch 32,128 --output benchmarks/results
    python -m benchmarks.step_time --models DiT-B/2,DiT-XL/2 --methods surgery,uno \
        --batch 10,32 --dtype bfloat16 --remat

A step without products is two programs, `uno.training.make_gradients`, which all methods of a
model share, and `uno.training.make_update`; their times add up, and the row `gradients` is the
first alone. With products, and with `--whole`, it is one program. Rounds are interleaved between
the programs, every run is blocked on, and goes on from the state of the one before, donated. Of
methods that alternate the mean over the turns counts; a turn that is another method's step, as
both of UNO-S, is that one's program. Programs are compiled as many at a time as there are cores.
Memory is the compiler's plan of temporaries, FLOPs are XLA's count, and the peak is what this
machine reaches at a product of square matrices in the same run.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from benchmarks import figures, output, parts, problems, timing
from experiments import common


@dataclasses.dataclass(frozen=True)
class Options:
    """Time the unlearning steps of models and methods."""

    models: str = "mnist_vae,celeba_vae,unet,dit_s"
    """Of mnist_vae, celeba_vae, unet, dit_small, dit_s and published sizes such as DiT-XL/2,
    with commas."""
    methods: str = "all"
    """Names of the table of methods, with commas, or all."""
    batch: str = "32,128"
    """Batch sizes, of each kind, with commas."""
    rounds: int = 30
    """Timed steps of each method, model and batch size, at most."""
    seconds: float = 12.0
    """After so many, no further round of a model and batch size is begun."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; not of the MNIST VAE."""
    whole: bool = False
    """Whether each step is a program of its own, from batches to state, as by `jax.jit`."""
    remat: bool = False
    """Whether the blocks of denoisers are computed again in the backward pass."""
    output: Path | None = None
    """A folder for step_time.json, .md and .png."""


SHOWN = ("method", "batch", "ms", "surgery steps", "of peak", "temporaries, MiB", "compiled in, s")
"""The columns that a terminal has room for."""


def measure(
    made: parts.Parts, problem: problems.Problem, batch: int, options: Options, peak: float
) -> list[dict]:
    """Returns a line per method of one model at one batch size."""
    runs = {key: program.run for key, program in made.programs.items()}
    programs = timing.interleaved(runs, rounds=options.rounds, seconds=options.seconds)
    times = {method: made.step(method, programs.__getitem__) for method in made.turns}
    lines = []
    for method in made.turns:
        line = {"batch": batch, "method": method, **timing.spread(times[method])}
        for other in ("surgery", "retain-descent"):
            if other in times:
                # Pairs of one round, seconds apart, share the machine's mood.
                line[f"of_{other}"] = float(np.median(times[method] / times[other]))
        line["compile_seconds"] = made.compile_seconds(method)
        flops = made.step(method, lambda key: made.programs[key].flops)
        counted = np.isfinite(flops)
        line["gflop"] = flops / 1e9 if counted else None
        line["of_peak"] = flops / (line["median_ms"] / 1e3) / peak if counted else None
        line["temporary_mib"] = made.temporary_bytes(method) / 2**20
        line["parameters"] = problem.parameters
        lines.append(line)
    return lines


def table(lines: list[dict]) -> list[dict[str, str]]:
    """The lines as text."""
    return [
        {
            "model": line["model"],
            "batch": str(line["batch"]),
            "method": line["method"],
            "ms": f"{line['median_ms']:.4g}",
            "10 to 90 %": f"{line['low_ms']:.4g} to {line['high_ms']:.4g}",
            "surgery steps": f"{line['of_surgery']:.2f}" if "of_surgery" in line else "",
            "retain-descent steps": f"{line['of_retain-descent']:.2f}"
            if "of_retain-descent" in line
            else "",
            "of peak": "" if line["of_peak"] is None else f"{line['of_peak']:.0%}",
            "GFLOP": "" if line["gflop"] is None else f"{line['gflop']:.3g}",
            "temporaries, MiB": f"{line['temporary_mib']:.0f}",
            "compiled in, s": f"{line['compile_seconds']:.1f}",
        }
        for line in lines
    ]


def overview(lines: list[dict]) -> list[dict[str, str]]:
    """A row per method: its step in surgery steps, a column per model and batch size."""
    rows: dict[str, dict[str, str]] = {}
    for line in lines:
        row = rows.setdefault(line["method"], {"method": line["method"]})
        ratio = line.get("of_surgery")
        row[f"{line['model']}, {line['batch']}"] = "" if ratio is None else f"{ratio:.2f}"
    first = rows.setdefault("surgery", {"method": "surgery"})
    for line in lines:
        if line["method"] == "surgery":
            ms = line["median_ms"]
            shown = f"{ms:,.0f}" if ms >= 100 else f"{ms:.3g}"
            first[f"{line['model']}, {line['batch']}"] = f"1 ({shown} ms)"
    return list(rows.values())


def main(options: Options) -> list[dict]:
    """Prints the table and returns its lines."""
    names = problems.timed_methods()
    methods = names if options.methods == "all" else tuple(options.methods.split(","))
    peak = timing.matmul_peak(dtype=options.dtype)
    lines: list[dict] = []
    for name in options.models.split(","):
        problem = problems.get_problem(name, dtype=options.dtype, remat=options.remat)
        batches = {size: problem.batches(size) for size in map(int, options.batch.split(","))}
        compiled = parts.compile_parts(problem, methods, batches, whole=options.whole)
        for batch, made in compiled.items():
            found = measure(made, problem, batch, options, peak)
            lines += [{"model": name, **line} for line in found]
            rows = table(lines)
            best = max(peak, timing.matmul_peak(dtype=options.dtype))
            facts = output.about(matmul_peak_gflops=round(best / 1e9, 1))
            # After every batch size: what is cut short keeps what it has.
            if options.output:
                output.save(options.output, "step_time", lines, overview(lines), rows, facts=facts)
                figures.step_times(options.output / "step_time.png", lines)
            common.console.print(f"{name}, batch {batch}: done")
    for name in options.models.split(","):
        print(name)
        shown = [row for row in rows if row["model"] == name]
        common.print_table([{column: row[column] for column in SHOWN} for row in shown])
    print(*(f"{key}: {value}" for key, value in facts.items()), sep="\n")
    return lines


if __name__ == "__main__":
    main(tyro.cli(Options))
