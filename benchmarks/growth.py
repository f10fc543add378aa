"""How the cost of a step grows with parameters and batch size, and the fitted exponents.

    python -m benchmarks.growth --output benchmarks/results

The VAE of MNIST at widths that give 10⁵ to 10⁸ parameters, and at its own width with
batches of 8 to 1,024. The exponent is the slope of a line through the upper half of the
points of each curve, in logarithms: small programs cost what starting them costs.
"""

import dataclasses
from pathlib import Path

import numpy as np
import tyro

from benchmarks import figures, output, problems, timing
from experiments import common

PER_UNIT = 2 * 784 + 10
"""Parameters of the VAE per hidden unit."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Time steps of the MNIST VAE at many widths and batch sizes."""

    parameters: tuple[float, ...] = (1e5, 3e5, 1e6, 3e6, 1e7, 3e7, 1e8)
    """About so many parameters."""
    batch: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512, 1024)
    """Batch sizes, at the published width."""
    methods: tuple[str, ...] = ("retain-descent", "surgery", "uno")
    """Names of the table of methods."""
    rounds: int = 15
    """Timed steps of each, at most."""
    seconds: float = 10.0
    """After so many, no further round is begun."""
    output: Path | None = None
    """A folder for growth.json, .md and .png."""


def measure(along: str, hidden: int, batch: int, options: Options) -> list[dict]:
    """Returns a line per method at one width and batch size."""
    problem = problems.mnist_vae(hidden)
    programs = {}
    for method in options.methods:
        step, state = problems.make_step(problem, method)
        programs[method] = timing.compile_program(step, state, *problem.batches(batch))
    times = timing.interleaved(
        {method: program.run for method, program in programs.items()},
        rounds=options.rounds,
        seconds=options.seconds,
    )
    return [
        {
            "along": along,
            "parameters": problem.parameters,
            "batch": batch,
            "method": method,
            **timing.spread(times[method]),
            "temporary_mib": program.temporary_bytes / 2**20,
            "resident_mib": program.resident_bytes / 2**20,
        }
        for method, program in programs.items()
    ]


def exponent(x, y) -> float:
    """Slope of the upper half of a curve in logarithms; not a number for a single point."""
    if len(x) < 2:
        return float("nan")
    half = max(2, -(-len(x) // 2))
    return float(np.polyfit(np.log(x[-half:]), np.log(y[-half:]), 1)[0])


def curves(lines: list[dict], along: str, what: str) -> dict[str, tuple]:
    """Method to its x, y and label with the exponent."""
    found = {}
    for method in dict.fromkeys(line["method"] for line in lines):
        own = [line for line in lines if (line["along"], line["method"]) == (along, method)]
        x, y = (np.array([line[key] for line in own], float) for key in (along, what))
        found[method] = x, y, f"{method}, exponent {exponent(x, y):.2f}"
    return found


def main(options: Options) -> list[dict]:
    """Prints the exponents and returns the lines."""
    lines: list[dict] = []
    for count in options.parameters:
        lines += measure("parameters", max(1, round(count / PER_UNIT)), 64, options)
        common.console.print(f"{count:.0e} parameters: done")
    for batch in options.batch:
        lines += measure("batch", 400, batch, options)
        common.console.print(f"batch {batch}: done")
    panels = {
        f"{title} by {along}": (along, curves(lines, along, key))
        for along in ("parameters", "batch")
        for title, key in (("ms", "median_ms"), ("temporaries, MiB", "temporary_mib"))
    }
    rows = [
        {"curve": title, **{method: label.split(" ")[-1] for method, (*_, label) in drawn.items()}}
        for title, (_, drawn) in panels.items()
    ]
    common.print_table(rows)
    facts = output.about()
    if options.output:
        output.save(options.output, "growth", lines, rows, facts=facts)
        figures.growth(options.output / "growth.png", panels)
    return lines


if __name__ == "__main__":
    main(tyro.cli(Options))
