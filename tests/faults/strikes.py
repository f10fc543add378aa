"""What may happen to a job, and whether it gets over it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.faults import job
from uno_jax import checkpoints

ROOT = Path(__file__).parents[2]
SERIES = ("training", "forgetting")
DEADLINE = 120.0
SPACE = 40_000
"""Bytes a file may have where the disk is full: more than a log, less than a state."""


class Outcome(NamedTuple):
    """What became of a strike.

    Attributes:
      recovered: whether the end is that of the job that was left alone, bit by bit.
      lost: steps that have to be made again.
      said: what the job said, if that matters.
    """

    recovered: bool
    lost: int = 0
    said: str = ""


def begin(folder: Path, *arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.job", str(folder), *arguments],
        cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(folder: Path) -> tuple[dict, str]:
    """Runs the job to its end: what it ends with, and what it says."""
    process = begin(folder)
    _, said = process.communicate(timeout=DEADLINE)
    if process.returncode:
        raise RuntimeError(f"the job ended with {process.returncode}: {said}")
    return json.loads((folder / "final.json").read_text()), said


def on_disk(folder: Path) -> tuple[int, int]:
    """Steps on disk of either part of the job."""
    steps = (checkpoints.steps_in(folder / "checkpoints" / name) for name in SERIES)
    return tuple(max(found, default=0) for found in steps)


def lost(folder: Path, before: tuple[int, int]) -> int:
    """Steps that a process made, having found so many on disk, and did not save."""
    drawn = len((folder / job.DRAWN).read_text())
    # The second part draws what it has used before once more, and passes over it.
    return drawn - before[1] - (sum(on_disk(folder)) - sum(before))


def wait_for(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the job ended early, with {process.poll()}")
        time.sleep(0.002)


def being_written(folder: Path) -> bool:
    return any((folder / "checkpoints").glob("*/*tmp*"))


def killed(folder: Path, rng: random.Random, expected: dict, *, inside: bool = False) -> Outcome:
    """SIGKILL at a random moment behind the first checkpoint, or while one is written."""
    before = on_disk(folder)
    process = begin(folder)
    wait_for(process, lambda: sum(on_disk(folder)) > sum(before))
    time.sleep(rng.uniform(0.0, 0.6))
    if inside:
        wait_for(process, lambda: being_written(folder))
    process.kill()
    process.communicate()
    return Outcome(sum(on_disk(folder)) > sum(before), lost(folder, before))


def terminated(folder: Path, rng: random.Random, expected: dict) -> Outcome:
    """SIGTERM: saved, and exit 0 within 30 seconds."""
    before = on_disk(folder)
    process = begin(folder)
    wait_for(process, lambda: sum(on_disk(folder)) > sum(before))
    time.sleep(rng.uniform(0.0, 0.4))
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    seconds = time.monotonic() - asked
    fine = process.returncode == 0 and "asked to end: saved" in said
    return Outcome(fine, lost(folder, before), f"saved in {seconds:.1f} s")


def disk_full(folder: Path, rng: random.Random, expected: dict) -> Outcome:
    """No file may grow beyond what is left; on a run that `finish_part` made."""
    before = on_disk(folder)
    process = begin(folder, str(SPACE))
    _, said = process.communicate(timeout=DEADLINE)
    said = said.strip().splitlines()[-1]
    named = "could not be written" in said and "the last good checkpoint is" in said
    fine = process.returncode != 0 and named and on_disk(folder) == before
    return Outcome(fine and finish(folder)[0] == expected, 0, said[:120])


def finish_part(folder: Path) -> None:
    """Runs the job until there are some checkpoints of its second part, then ends it."""
    process = begin(folder)
    second = folder / "checkpoints" / SERIES[1]
    wait_for(process, lambda: len(checkpoints.steps_in(second)) > 1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)


def damaged(folder: Path, rng: random.Random, expected: dict, *, how: Callable) -> Outcome:
    """Something is wrong with a file of the newest checkpoint, of `finish_part`'s run."""
    series = folder / "checkpoints" / SERIES[1]
    older, newest = checkpoints.steps_in(series)[-2:]
    how(series / str(newest))
    final, said = finish(folder)
    said = " ".join(said.split())
    named = f"checkpoint {newest} is damaged" in said
    at = said.index(f"checkpoint {newest} is damaged") if named else 0
    return Outcome(named and final == expected, newest - older, said[at : at + 120])


def read_only(folder: Path, rng: random.Random, expected: dict) -> Outcome:
    """A folder that cannot be written: said at once."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o555)
    # Permissions do not bind a superuser; /sys is closed to everyone.
    closed = Path("/sys/uno_jax") if os.geteuid() == 0 else folder / "run"
    process = begin(closed)
    _, said = process.communicate(timeout=DEADLINE)
    folder.chmod(0o755)
    said = said.strip().splitlines()[-1]
    fine = process.returncode == 1 and said.startswith("error: ") and str(closed) in said
    return Outcome(fine, 0, said[:120])
