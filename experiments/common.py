"""What the experiments share: the run folder, progress, facts about a run."""

import csv
import dataclasses
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import tyro
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from uno_jax import parallel

console = Console(stderr=True)


class RunFolder:
    """The folder of one run, the same for every experiment.

    Holds `config.json`, `metrics.jsonl` (appended as it runs), `metrics.json`,
    `checkpoints/`, `figures/` and the report. Given the same folder again, a run
    goes on from its checkpoints; with another configuration that is an error.
    """

    data: str
    """Fingerprint of the data, to be set before the first checkpoint."""

    def __init__(self, path: Path, options: Any, *, ignore: tuple[str, ...] = ("out",)):
        self.path = path
        self.config = {
            k: list(v) if isinstance(v, tuple) else str(v) if isinstance(v, Path) else v
            for k, v in dataclasses.asdict(options).items()
            if k not in ignore
        }
        self.data = ""
        self._checkpoints = path / "checkpoints"
        if jax.process_index():
            # Of several processes the first writes; what the others say is kept apart.
            self.path = path = path / "processes" / str(jax.process_index())
        file = path / "config.json"
        if file.exists():
            known = json.loads(file.read_text())
            changed = [
                f"{key}: {known.get(key)!r} there, {self.config.get(key)!r} now"
                for key in sorted(known.keys() | self.config.keys())
                if known.get(key) != self.config.get(key)
            ]
            if changed:
                raise ValueError(
                    f"{path} holds a run with another configuration ({'; '.join(changed)}). "
                    "Give another --out, or remove that folder."
                )
        for folder in (self._checkpoints, path / "figures", path / "samples"):
            folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(self.config, indent=2) + "\n")

    def checkpoint(self, name: str) -> Path:
        """The folder of a named checkpoint."""
        return self._checkpoints / name

    def figure(self, name: str) -> Path:
        """The file of a named figure."""
        return self.path / "figures" / f"{name}.png"

    def log(self, stage: str, rows: list[dict]) -> None:
        """Appends rows to `metrics.jsonl`, each with its stage."""
        with (self.path / "metrics.jsonl").open("a") as file:
            for row in rows:
                file.write(json.dumps({"stage": stage, **row}) + "\n")

    def write_json(self, name: str, value: Any) -> Path:
        """Writes `NAME.json` into the folder."""
        file = self.path / f"{name}.json"
        file.write_text(json.dumps(value, indent=2) + "\n")
        return file


class Bar:
    """A progress bar with the newest metrics, as the `report` of a loop."""

    def __init__(self, title: str, total: int, *, every: int = 1):
        self._progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[metrics]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self.offset = 0
        self._shown: dict[str, float] = {}
        self._every = every
        self._task = self._progress.add_task(title, total=total, metrics="")

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *exception) -> None:
        self._progress.stop()

    def __call__(self, row: dict) -> None:
        """Shows a row of the history."""
        if row["step"] % self._every and row["step"] != 1:
            return
        for key in ("loss", "retain_loss", "forgotten_fraction"):
            if key in row:
                self._shown[key] = float(row[key])
        text = "  ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in self._shown.items())
        self._progress.update(self._task, completed=self.offset + row["step"], metrics=text)


def counter(title: str) -> Callable[[int, int], None]:
    """Returns a function of the numbers done and to do that shows a bar until all is done."""
    bars: list[Bar] = []

    def report(done: int, total: int) -> None:
        if not bars:
            bars.append(Bar(title, total).__enter__())
        bars[0]({"step": done})
        if done == total:
            bars[0].__exit__()

    return report


def write_whole(file: Path, text: str) -> None:
    """Writes a file so that an interruption leaves the old one or the new one."""
    aside = file.with_suffix(f".new{jax.process_index()}")
    aside.write_text(text)
    aside.replace(file)


def facts() -> dict[str, str]:
    """Command, versions and hardware, for the end of a report."""
    versions = {
        name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "optax", "flax")
    }
    try:
        with open("/proc/cpuinfo") as file:
            cpu = next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    return {
        "command": shlex.join(["python", *_program(), *sys.argv[1:]]),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "python": platform.python_version(),
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {cpu}",
    }


def _program() -> list[str]:
    """How this was started: `-m experiments.mnist`, or the file."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return ["-m", spec.name] if spec else [f"experiments/{Path(sys.argv[0]).name}"]


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "uno_jax" / "xla"
    jax.config.update(
        "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(default))
    )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def print_table(rows: list[dict[str, str]]) -> None:
    """Prints rows as a table on standard output, of several processes in the first."""
    if not parallel.is_first():
        return
    table = Table(box=box.SIMPLE)
    for number, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)


def markdown_table(rows: list[dict[str, str]]) -> str:
    """Rows as a table of Markdown; of a column that a row lacks its cell is empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, ["---"] * len(names), *([row.get(n, "") for n in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def write_tables(folder: Path, rows: list[dict[str, str]], summary: list[str], facts: dict) -> None:
    """Writes table.csv, table.json and table.md, with the summary in front of the last."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (folder / "table.json").write_text(json.dumps({"rows": rows, **facts}, indent=2) + "\n")
    text = [*(f"{paragraph}\n" for paragraph in summary), markdown_table(rows)]
    text += ["", *(f"- {name}: `{value}`" for name, value in facts.items())]
    (folder / "table.md").write_text("\n".join(text) + "\n")


def run(main: Callable[[Any], Any], options: type) -> None:
    """Runs an experiment from the command line.

    A mistake of the user ends in one message, not in a stack trace. An interrupt
    ends the run with what was saved so far in place.
    """
    parsed = tyro.cli(options)
    parallel.join_processes()
    console.quiet = not parallel.is_first()
    use_compilation_cache()
    try:
        main(parsed)
    except (ValueError, OSError, ArithmeticError, ImportError) as error:
        if os.environ.get("UNO_DEBUG"):
            raise
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from the last checkpoint")
        sys.exit(130)
