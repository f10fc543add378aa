"""Audits of MNIST models from the published weights.

    TFDS_DATA_DIR=... python -m experiments.mnist_audit --reference DIR

DIR holds `mnist_vae.npz` and `mnist_classifier.npz`. Audited are the original against itself,
UNO and a hat-guided model at the published stop, the redirect, and a model retrained with
another seed than the yardstick. Audits that are there are not made again.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script runs from any folder

from experiments import common, mnist_audit_lab, resumable
from experiments.mnist_audit_lab import Lab, row_of
from uno_jax import audit

ModelName = Literal["original", "uno", "hat", "redirect", "retrained"]


@dataclasses.dataclass(frozen=True)
class Options(mnist_audit_lab.Options):
    """Audit MNIST models from the published weights."""

    forget: int = 1
    """The digit to forget."""
    models: tuple[ModelName, ...] = ("original", "uno", "hat", "redirect", "retrained")
    """Models to audit."""


def audit_models(options: Options, lab: Lab) -> list[dict[str, str]]:
    """Audits every model of the options; returns a row for each."""
    digit = options.forget
    yardstick = lab.retrained("retrained", (digit,), options.seed)
    rows = []
    for name in options.models:
        steps, seconds, took_part = 0, 0.0, False
        if name == "original":
            state = lab.original
        elif name == "retrained":
            state = lab.retrained("retrained-again", (digit,), options.seed + 1)
        else:
            if name == "redirect":
                result = lab.redirect(lab.original, digit, (), "after-redirect")
            else:
                method, hat = ("uno", 0.0) if name == "uno" else ("retain-descent", 1e3)
                result = lab.unlearn(name, method, digit, hat=hat)
                took_part = True
            state, steps = result.state, len(result.history)
            seconds = result.history[-1].get("seconds", 0.0)
        found = lab.audit(
            name,
            digit,
            {"before": lab.original, "after": state, "retrained": yardstick},
            judges={"guide": audit.Judge(lab.guide, (digit,), took_part)},
            steps=steps,
            cost={
                "seconds": seconds,
                "retraining_seconds": resumable.seconds_of(lab.folder, "retrained"),
            }
            if steps
            else {},
        )
        rows.append({"model": name, **row_of(found), "steps": str(steps or "")})
    return rows


def main(options: Options) -> list[dict[str, str]]:
    """Runs the audits and returns the rows of their table."""
    if not 0 <= options.forget <= 9:
        raise ValueError(f"forget: expected a digit from 0 to 9, got {options.forget}.")
    return mnist_audit_lab.run(options, "mnist-audit", "models", audit_models)


if __name__ == "__main__":
    common.run(main, Options)
