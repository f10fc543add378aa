"""Compares two results of a benchmark, of the same machine.

    python -m benchmarks.compare old.json new.json --factor 1.15

Rows are matched by their model, batch size, method and the like. A step has become slower
when its median has grown by more than the factor, and by more than the noise of both runs:
half the way from the 10 to the 90 per cent point, relative to the median. Exits with 1 if one
has, with 2 if there is nothing to compare.
"""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import tyro

from experiments.common import print_table

IDENTITY = ("model", "batch", "method", "hessian", "library", "parameters")


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare two results of a benchmark."""

    old: tyro.conf.Positional[Path]
    """The JSON file from before."""
    new: tyro.conf.Positional[Path]
    """The JSON file from after."""
    factor: float = 1.15
    """How much slower a step may be, at least 1."""


def rows_of(file: Path) -> dict[tuple, dict]:
    """The timed rows of a result by what they are of.

    Raises:
      ValueError: if the file holds none.
    """
    rows = json.loads(file.read_text()).get("rows", [])
    found = {
        tuple((key, row[key]) for key in IDENTITY if key in row): row
        for row in rows
        if "median_ms" in row
    }
    if not found:
        raise ValueError(f"{file}: expected rows with median_ms, got none.")
    return found


def noise(row: dict) -> float:
    """Relative spread of a row's times."""
    return 0.5 * (row["high_ms"] - row["low_ms"]) / row["median_ms"]


def compare(old: dict[tuple, dict], new: dict[tuple, dict], factor: float) -> list[dict]:
    """A line for each row that both have: ratio, noise, and whether it became slower.

    Raises:
      ValueError: for a factor below 1, or if no row is in both.
    """
    if not factor >= 1:
        raise ValueError(f"factor: expected a number of at least 1, got {factor}.")
    lines = []
    for identity in [identity for identity in old if identity in new]:
        ratio = new[identity]["median_ms"] / old[identity]["median_ms"]
        uncertain = float(np.hypot(noise(old[identity]), noise(new[identity])))
        lines.append(
            {
                "of": " ".join(str(value) for _, value in identity),
                "ratio": ratio,
                "noise": uncertain,
                "slower": ratio > factor and ratio - 1 > uncertain,
            }
        )
    if not lines:
        raise ValueError("expected rows of the same models, batches and methods, got none.")
    return lines


def main(options: Options) -> int:
    """Prints the ratios; 1 if a step has become slower."""
    try:
        lines = compare(rows_of(options.old), rows_of(options.new), options.factor)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_table(
        [
            {
                "of": line["of"],
                "new / old": f"{line['ratio']:.3f}",
                "noise": f"± {line['noise']:.3f}",
                "": "slower" if line["slower"] else "",
            }
            for line in lines
        ]
    )
    return int(any(line["slower"] for line in lines))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
