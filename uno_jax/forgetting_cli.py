"""The command `uno-forget`: makes the model of a case forget, in a folder.

uno-forget --case my_package.my_module:make_case --out runs/forget

The function takes no argument and returns a `uno_jax.case.Case`. An interrupted run goes on with
the same command.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uno_jax._extras import require
from uno_jax.case import Case, load_case
from uno_jax.forgetting import CHECKPOINTS, Forgotten, forget
from uno_jax.training.finite import NonFiniteError

PARAMS = "params"
"""The checkpoint of the new parameters within the folder of a run."""
HISTORY = "history.json"
"""What was done, and the metrics of each step."""
PICTURE = "progress.png"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        "uno-forget", description="Make a trained generative model forget, from a case of yours."
    )
    add = parser.add_argument
    add("--case", required=True, metavar="MODULE:FUNCTION", help="makes a uno_jax.case.Case")
    add("--out", required=True, type=Path, metavar="DIR", help="the folder of the run")
    add("--method", help="redirect by default")
    add("--steps", type=int, help="those of the method by default")
    add("--seed", type=int, help="decides batches and noise; 0 by default")
    add("--exchange", type=int, help="the label that a forgotten one draws from now on")
    add("--trainable", metavar="REGEX", help="paths of the parameters that may move")
    add("--save-every", type=int, metavar="STEPS", help="between two checkpoints; 25 by default")
    add(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="options",
        help="an option of the method, such as learning_rate=1e-3",
    )  # fmt: skip
    add("--quiet", action="store_true", help="no lines of progress")
    return parser.parse_args(arguments)


def options_of(parsed: argparse.Namespace, case: Case) -> dict[str, Any]:
    """The arguments of `forget`: those of the case, and over them those of the command line.

    Raises:
      ValueError: for an option without a value.
    """
    chosen = dict(case.options)
    for name in ("method", "steps", "seed", "exchange", "trainable", "save_every"):
        if getattr(parsed, name) is not None:
            chosen[name] = getattr(parsed, name)
    for text in parsed.options:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValueError(f"set: expected NAME=VALUE, got {text!r}.")
        try:
            chosen[name] = json.loads(value)
        except json.JSONDecodeError:
            chosen[name] = value
    return chosen


def run(parsed: argparse.Namespace) -> Forgotten:
    """Makes the model forget, and writes parameters, history and a picture of the losses.

    Raises:
      ValueError: as `forget`, or if the function returns no case.
      OSError: if the folder cannot be written.
    """
    case = load_case(parsed.case)
    if not isinstance(case, Case):
        raise ValueError(f"case: expected a uno_jax.case.Case, got a {type(case).__name__}.")
    result = forget(
        case.model,
        case.params,
        retain=case.retain,
        forget=case.forget,
        out=parsed.out,
        progress=not parsed.quiet,
        **options_of(parsed, case),
    )
    write(parsed.out, result)
    return result


def write(folder: Path, result: Forgotten) -> None:
    """Writes parameters, history and picture.

    Raises:
      OSError: if they cannot be written.
    """
    from uno_jax import checkpoints

    checkpoints.save(folder / PARAMS, result.params)
    said = {name: value for name, value in result._asdict().items() if name != "params"}
    aside = folder / f"{HISTORY}.new"
    aside.write_text(json.dumps(said, indent=1) + "\n")
    aside.replace(folder / HISTORY)
    draw(folder / PICTURE, result)


def draw(file: Path, result: Forgotten) -> None:
    """Draws the losses over the steps, if matplotlib is installed."""
    try:
        require("matplotlib", "experiments")
    except ImportError:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for name in ("retain_loss", "forget_loss"):
        rows = [row for row in result.history if name in row]
        axes.plot([row["step"] for row in rows], [row[name] for row in rows], label=name)
    axes.set_xlabel("step")
    axes.set_title(result.method)
    axes.legend()
    figure.savefig(file, dpi=120)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0, 2 on a mistake, 130 when interrupted."""
    parsed = parse(arguments)
    try:
        result = run(parsed)
    except (ValueError, OSError, ImportError, NonFiniteError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; {_saved(parsed.out)}", file=sys.stderr)
        return 130
    print(f"{result.steps} steps of {result.method}: parameters in {parsed.out / PARAMS}")
    return 0


def _saved(out: Path) -> str:
    from uno_jax import checkpoints

    steps = checkpoints.steps_in(out / CHECKPOINTS)
    if not steps:
        return "nothing was saved yet."
    return f"step {max(steps)} is saved in {out}, and the same command goes on from there."


def entry() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
