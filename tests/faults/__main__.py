"""Strikes a job in every way and prints what it got over.

    python -m tests.faults

20 kills at random moments, 5 inside a save, and the rest; minutes on two cores.
"""

import functools
import random
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import track

from experiments.common import print_table
from tests.faults import strikes

REPEATED = {
    "SIGKILL at a random moment": (20, strikes.killed),
    "SIGKILL inside a save": (5, functools.partial(strikes.killed, inside=True)),
    "SIGTERM": (3, strikes.terminated),
}
"""Strikes that leave the job to go on, on the same folder until it ends."""
ONCE = {
    "disk full": strikes.disk_full,
    "read-only folder": strikes.read_only,
    "truncated file": functools.partial(strikes.damaged, how=strikes.truncate),
    "deleted shard": functools.partial(strikes.damaged, how=Path.unlink),
    "flipped bit": functools.partial(strikes.damaged, how=strikes.flip),
}
PER_RUN = 8
"""Strikes on one folder; then the job is finished, and another begun."""


def repeat(strike, times: int, folder: Path, expected: dict, seed: int = 0) -> tuple[int, str]:
    """Strikes so often, over as many runs as it takes: how many were got over.

    A strike counts if the run that it is of ends as one that was left alone.
    """
    rng, recovered, lost, done = random.Random(seed), 0, "", 0
    while done < times:
        run, fine = folder / str(done), 0
        for _ in range(min(PER_RUN, times - done)):
            outcome = strike(run, rng, expected)
            fine, done, lost = fine + outcome.recovered, done + 1, outcome.lost
        recovered += fine if strikes.finish(run)[0] == expected else 0
    return recovered, lost


def main() -> int:
    """Prints the table; 0 if everything was got over."""
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected, _ = strikes.finish(folder / "alone")
        for fault, (times, strike) in track(REPEATED.items(), console=Console(stderr=True)):
            recovered, lost = repeat(strike, times, folder / fault, expected)
            lines.append((fault, times, recovered, lost))
        for fault, strike in track(ONCE.items(), console=Console(stderr=True)):
            outcome = strike(folder / fault, random.Random(0), expected)
            lines.append((fault, 1, int(outcome.recovered), outcome.lost))
    names = ("fault", "tried", "recovered", "lost")
    print_table([dict(zip(names, map(str, line), strict=True)) for line in lines])
    return int(any(tried != recovered for _, tried, recovered, _ in lines))


if __name__ == "__main__":
    sys.exit(main())
