"""Deletion requests over time: MNIST digits that a model forgets one after the other.

    TFDS_DATA_DIR=... python -m experiments.mnist_requests --reference DIR

DIR holds `mnist_vae.npz` and `mnist_classifier.npz`, the published weights. The redirect makes
the model forget 1, then 7, then 4; of a digit that is gone no image is looked at again. After each
request all so far are audited, and a ledger beside the checkpoints says what was done. The same
command goes on where it was interrupted, and takes up digits that were added at the end.
"""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script runs from any folder

import uno_jax as uno
from experiments import common, mnist_audit_lab
from experiments.mnist_audit_lab import Lab, row_of
from uno_jax import checkpoints, metrics, report


@dataclasses.dataclass(frozen=True)
class Options(mnist_audit_lab.Options):
    """Make the published MNIST VAE forget digit after digit."""

    digits: tuple[int, ...] = (1, 7, 4)
    """The requests, in their order."""


def audit_name(names: tuple[str, ...], digit: str) -> str:
    """The audit of one digit after some requests."""
    return f"after-{'-'.join(names)}-of-{digit}"


def fulfil_requests(options: Options, lab: Lab) -> list[dict[str, str]]:
    """Makes the original forget digit after digit; returns a row per audit."""
    folder, digits = lab.folder, options.digits

    def checkpoint(name):
        return folder.checkpoint(f"request-{name}")

    def run_for(number):
        def run(state):
            before = digits[:number]
            return lab.redirect(state, digits[number], before, f"work-{digits[number]}").state

        return run

    def restore(name):
        path = checkpoint(name)
        like = (lab.original.params, lab.original.model_state)
        if not checkpoints.exists(path):
            return None
        params, model_state = checkpoints.restore(path, like)
        return lab.original.replace(params=params, model_state=model_state)

    def save(name, state):
        checkpoints.save(checkpoint(name), (state.params, state.model_state))

    def audited(state, names):
        said = {}
        gone = tuple(int(name) for name in names)
        yardstick = lab.retrained(f"retrained-{'-'.join(names)}", gone, options.seed)
        for digit in gone:
            others = tuple(d for d in gone if d != digit)
            trees = {"before": lab.original, "after": state, "retrained": yardstick}
            name = audit_name(names, str(digit))
            found = lab.audit(name, digit, trees, gone=others)
            file = folder.path / "audits" / name / "audit.json"
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            said[str(digit)] = {"verdict": found["verdict"]["name"], "audit": digest}
        return said

    requests = [
        uno.requests.Request(str(digit), run_for(number), "redirect")
        for number, digit in enumerate(digits)
    ]
    ledger = folder.path / "checkpoints" / "ledger.jsonl"
    uno.requests.unlearn_requests(
        requests,
        lab.original,
        ledger=ledger,
        save=save,
        restore=restore,
        audit=audited,
        report=lambda line: common.console.print(f"request {line}"),
    )
    return summarise(folder, digits, ledger)


def summarise(folder: common.RunFolder, digits: tuple[int, ...], ledger: Path):
    """A row per audit, and the figure of what is left of each digit."""
    rows: list[dict[str, str]] = []
    curves: dict[str, list[tuple[int, float, float, float]]] = {}
    for number, entry in enumerate(uno.requests.read_ledger(ledger), start=1):
        names = tuple(map(str, digits[:number]))
        for digit in names:
            file = folder.path / "audits" / audit_name(names, digit) / "audit.json"
            found = json.loads(file.read_text())
            rows.append({"after requests": ", ".join(names), "digit": digit, **row_of(found)})
            who = next(iter(found["judges"]))
            if digit not in curves:
                curves[digit] = [_point(number - 1, found, "before", who)]
            curves[digit].append(_point(number, found, "after", who))
        common.console.print(f"ledger: {entry['request']} {entry['began']} {entry['audits']}")
    report.fraction_curves(
        folder.figure("requests"),
        {f"digit {digit}": points for digit, points in curves.items()},
        ylabel="samples that the audit's judge takes for the digit",
        xlabel="requests fulfilled",
    )
    return rows


def _point(number, found, model, who) -> tuple[int, float, float, float]:
    p = metrics.Proportion(**found["models"][model]["generation"]["fractions"][who])
    return number, p.value, p.low, p.high


def main(options: Options) -> list[dict[str, str]]:
    """Fulfils the requests and returns the rows of the audits' table."""
    digits = options.digits
    if not digits or len(set(digits)) != len(digits) or not all(0 <= d <= 9 for d in digits):
        raise ValueError(f"digits: expected different digits from 0 to 9, got {digits}.")
    return mnist_audit_lab.run(options, "mnist-requests", "digits", fulfil_requests)


if __name__ == "__main__":
    common.run(main, Options)
