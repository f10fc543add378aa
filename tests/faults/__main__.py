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
from tests.checkpoints import damage
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
    "truncated file": functools.partial(strikes.damaged, how=damage.truncate),
    "deleted shard": functools.partial(strikes.damaged, how=damage.delete),
    "flipped bit": functools.partial(strikes.damaged, how=damage.flip),
}
ON_PART = tuple(fault for fault in ONCE if fault != "read-only folder")
"""Strikes on a run that is half done."""
PER_RUN = 8
"""Strikes on one folder; then the job is finished, and another begun."""


def repeat(strike, times: int, folder: Path, expected: dict, seed: int = 0) -> strikes.Outcome:
    """Strikes so often, over as many runs as it takes.

    A strike counts as got over if the run that it is of ends as one that was left alone.

    Returns:
      How many were got over, the most steps that one lost, and what was said last.
    """
    rng, recovered, lost, said, done = random.Random(seed), 0, 0, "", 0
    while done < times:
        run, fine = folder / str(done), 0
        for _ in range(min(PER_RUN, times - done)):
            outcome = strike(run, rng, expected)
            fine, done = fine + outcome.recovered, done + 1
            lost, said = max(lost, outcome.lost), outcome.said
        recovered += fine if strikes.finish(run)[0] == expected else 0
    return strikes.Outcome(recovered, lost, said)


def main() -> int:
    """Prints the table; 0 if everything was got over."""
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected, _ = strikes.finish(folder / "alone")
        faults = {fault: (1, strike) for fault, strike in ONCE.items()}
        for fault, (times, strike) in track(
            {**REPEATED, **faults}.items(), console=Console(stderr=True)
        ):
            if fault in REPEATED:
                outcome = repeat(strike, times, folder / fault, expected)
            else:
                if fault in ON_PART:
                    strikes.finish_part(folder / fault)
                outcome = strike(folder / fault, random.Random(0), expected)
            lines.append((fault, times, int(outcome.recovered), outcome.lost, outcome.said))
    names = ("fault", "tried", "recovered", "steps made again, at most", "said")
    print_table([dict(zip(names, map(str, line), strict=True)) for line in lines])
    return int(any(line[1] != line[2] for line in lines))


if __name__ == "__main__":
    sys.exit(main())
