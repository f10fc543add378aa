"""Audits a model from files, or from a function of yours.

    python -m uno_jax.audit --before before.npz --after after.npz --retain retain.npz \
        --forget forget.npz --out audit
    python -m uno_jax.audit --case my_package.my_module:make_case --out audit
    python -m uno_jax.audit --case my_package.my_module:make_case --run runs/forget --out audit

The files hold samples of the two models and the two data sets. The function takes no argument
and returns an `audit.Case`, with parameters and a loss: then memory, membership and relearning
are audited too. With `--run` it is the case that `uno-forget` was given, and the folder that it
wrote.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

from uno_jax import audit
from uno_jax.audit.of_run import case_of_run
from uno_jax.case import Case, load_case


@dataclasses.dataclass(frozen=True)
class Options:
    """Audit a model that was to forget."""

    out: Path = Path("audit")
    """The folder for audit.json, audit.html and figures."""
    before: Path | None = None
    """npz of samples of the model before."""
    after: Path | None = None
    """npz of samples of the model after."""
    retain: Path | None = None
    """npz of examples to retain, with labels or without."""
    forget: Path | None = None
    """npz of examples to forget."""
    retrained: Path | None = None
    """npz of samples of a model retrained without the forget set."""
    control: Path | None = None
    """npz of samples after as many steps of plain retain descent."""
    retain_held_out: Path | None = None
    """npz of examples like the retained ones that no model was trained on."""
    forget_held_out: Path | None = None
    """npz of examples like the forgotten ones that no model was trained on."""
    case: str = ""
    """MODULE:FUNCTION that makes a case, instead of files."""
    run: Path | None = None
    """Folder that uno-forget wrote, if the case is the one it was given."""
    inception: Path | None = None
    """Inception-v3 weights for FID (npz or safetensors, names of pt_inception-2015-12-05)."""
    settings: audit.Settings = dataclasses.field(default_factory=audit.Settings)
    """How much is drawn and trained."""
    thresholds: audit.Thresholds = dataclasses.field(default_factory=audit.Thresholds)
    """What counts as what."""


FILES = ("before", "after", "retain", "forget")


def make_case(options: Options) -> audit.Case:
    """The case that the options name.

    Raises:
      ValueError: if neither a function nor all files are given.
    """
    if options.case:
        case = load_case(options.case)
        if isinstance(case, Case) and options.run is None:
            raise ValueError("run: expected the folder that uno-forget wrote for this case.")
        if not isinstance(case, Case) and options.run is not None:
            raise ValueError("run: expected a uno_jax.case.Case with it, got another case.")
        return case_of_run(case, options.run) if options.run else case
    missing = [name for name in FILES if getattr(options, name) is None]
    if missing:
        raise ValueError(
            f"expected --case, or npz files for all of {', '.join(FILES)}; "
            f"{', '.join(missing)} missing."
        )
    names = (*FILES, "retrained", "control", "retain_held_out", "forget_held_out")
    return audit.case_of_files(**{name: getattr(options, name) for name in names})


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the audit; 0 if the verdict is "forgotten", 1 if it is another, 2 on a mistake."""
    options = tyro.cli(Options, args=arguments)
    try:
        case = make_case(options)
        spaces = options.inception and {"Inception": audit.inception(options.inception, case.data)}
        found = audit.run(
            case,
            settings=options.settings,
            thresholds=options.thresholds,
            out=options.out,
            features=spaces,
            report=lambda stage: print(f"{stage} ...", file=sys.stderr, flush=True),
        )
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(audit.summary(found.found))
    print(f"report: {options.out / 'audit.html'}")
    return int(found.verdict.name != audit.FORGOTTEN)


def entry() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
