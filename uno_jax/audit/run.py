"""The audit from end to end, and the file that holds what it found."""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from uno_jax.audit import case as cases
from uno_jax.audit import (
    generation,
    influence,
    judging,
    membership,
    page,
    quality,
    relearning,
    verdict,
)
from uno_jax.audit.evidence import gather
from uno_jax.audit.settings import Settings, Thresholds

SCHEMA = "uno_jax.audit/1"
COSTS = {
    "gradient_evaluations": "gradient evaluations of the method, per training example or in all",
    "seconds": "seconds of the method",
    "joules": "energy of the method, where the device reports it",
    "retraining_gradient_evaluations": "the same of retraining",
    "retraining_seconds": "seconds of retraining to the same quality",
    "retraining_joules": "energy of retraining",
}


class Audit(NamedTuple):
    """What an audit found.

    Attributes:
      verdict: the verdict with its criteria.
      found: everything, as `audit.json` holds it.
      digest: SHA-256 of `audit.json`, for a ledger.
    """

    verdict: verdict.Verdict
    found: dict
    digest: str


def run(
    case: cases.Case,
    *,
    settings: Settings | None = None,
    thresholds: Thresholds | None = None,
    out: str | Path | None = None,
    features: dict[str, Callable] | None = None,
    report: Callable[[str], None] | None = None,
) -> Audit:
    """Audits a model that was to forget.

    The audit trains two judges of its own, which no method has seen, draws from every model
    with equal latents, and asks: what is drawn, with what quality, how far from the original and
    the retrained model, is membership told by the loss, does it come back, does plain retain
    descent do as much, and at what cost. What cannot be measured with what is at hand is named in
    `not_measured` with the reason.

    Args:
      case: models, data and judges.
      settings: how much is drawn and trained.
      thresholds: what counts as what.
      out: a folder for `audit.json`, `audit.html` and its figures.
      features: further spaces for Fréchet distances, name to a function from (n, ...) images to
        (n, D), such as `audit.inception`.
      report: called with the name of each stage as it begins.

    Returns:
      An `Audit`.

    Raises:
      ValueError: for a case that cannot be audited, saying what was expected and what was got.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np
      >>> from uno_jax import audit
      >>> rng = np.random.default_rng(0)
      >>> def blobs(centre, n):
      ...     return {"image": rng.normal(centre, 0.3, (n, 4)).astype(np.float32)}
      >>> def mixed(share, n=1000):
      ...     gone = round(share * n)
      ...     return np.concatenate([blobs(1.0, n - gone)["image"], blobs(-1.0, gone)["image"]])
      >>> case = audit.Case(
      ...     data=audit.Data(retain=blobs(1.0, 800), forget=blobs(-1.0, 200)),
      ...     samples={"before": mixed(0.2), "after": mixed(0.0)},
      ... )
      >>> audit.run(case, settings=audit.Settings(judge_steps=100)).verdict.name
      'forgotten'
    """
    settings, thresholds = settings or Settings(), thresholds or Thresholds()
    say = report or (lambda stage: None)
    started = time.perf_counter()
    cases.check(case)

    say("judges")
    own = judging.own_judges(case.data, steps=settings.judge_steps, seed=settings.seed)
    judges = {**{name: judge.judge for name, judge in own.items()}, **case.judges}
    first = next(iter(own.values()))
    reliability = judging.reliability(judges, case.data)

    params = dict(case.params)
    trainers = relearning.jit_steps(case.model) if case.model else {}
    if trainers and case.steps and "control" not in params:
        say("control")
        params["control"] = relearning.make_control(case, settings, next(iter(trainers.values())))
    say("samples and losses")
    evidence = gather(case, params, judges, first, settings)
    seen = evidence.classes["before"]
    if not any(judging.counted(judge, seen[who]).count for who, judge in judges.items()):
        raise ValueError(
            "before: expected samples of what is to be forgotten, got none among "
            f"{len(evidence.samples['before'])}: there is nothing to forget."
        )

    names = [name for name in cases.NAMES if name in evidence.samples]
    found: dict[str, dict] = {name: {} for name in names}
    attacked = bool(evidence.losses) and case.data.forget_held_out is not None
    relearned = [name for name in names if trainers and name != "before"]
    spaces = quality.spaces_of(features, evidence, case.data)
    for name in names:
        say(f"measures of {name}")
        found[name]["generation"] = generation.measure(
            name, evidence, judges, first, case.data, settings
        )
        found[name]["quality"] = quality.measure(name, evidence, first, case.data, settings, spaces)
        found[name]["influence"] = {
            other: influence.measure(name, other, evidence, case, params)
            for other in ("before", "retrained")
            if other in names and other != name
        }
        if attacked:
            found[name]["membership"] = membership.measure(name, evidence, settings)
    if evidence.losses:
        known = cases.held_out(evidence.losses["before"], "forget")
        found["before"]["memory"] = {"deviation": float(known.std())}
    for name in relearned:
        say(f"relearning of {name}")
        found[name]["relearning"] = relearning.measure(
            params[name], case, trainers, first.judge, settings
        )

    result = {
        "schema": SCHEMA,
        "judges": reliability,
        "models": found,
        "data": {name: cases.count(side) for name, side in case.data.sides.items()},
        "not_measured": _not_measured(case, names, attacked, bool(trainers)),
        "cost": dict(case.cost),
        "settings": dataclasses.asdict(settings),
        "thresholds": dataclasses.asdict(thresholds),
        "about": {
            **{name: importlib.metadata.version(name) for name in ("uno_jax", "jax")},
            "device": jax.devices()[0].device_kind,
            "seed": settings.seed,
            "seconds of the audit": round(time.perf_counter() - started, 1),
            **case.about,
        },
    }
    said = verdict.decide(result, judges, thresholds)
    result["verdict"] = {
        **said._asdict(),
        "criteria": [criterion._asdict() for criterion in said.criteria],
    }
    result = plain(result)
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "audit.json").write_text(text)
        alike = {
            name: generation.most_alike(name, evidence, first, case.data) for name in names[:2]
        }
        page.write(folder, result, evidence.samples, alike)
    return Audit(said, result, hashlib.sha256(text.encode()).hexdigest())


def plain(value: Any) -> Any:
    """The same in what JSON has: a number that is not finite becomes None."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if hasattr(value, "item"):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int) else str(value)


def _not_measured(case, names, attacked, relearned) -> dict[str, str]:
    reasons = {}
    if "retrained" not in names:
        reasons["distance to the retrained model"] = "no model retrained without the forget set"
    if "control" not in names:
        reasons["control"] = (
            "the number of the method's steps was not given"
            if relearned
            else "no control among the samples and no training step"
        )
    if not (case.model and case.model.loss_fn):
        reasons["losses"] = "no loss of each example"
    if not attacked:
        reasons["membership"] = (
            "no loss of each example"
            if case.data.forget_held_out is not None
            else "no held-out examples of the forgotten kind"
        )
    elif "retrained" not in names and not case.shadows:
        reasons["likelihood ratio"] = "no model that never saw the forget set"
    if not relearned:
        reasons["relearning"] = "no training step"
    if not case.model or not case.model.encode:
        reasons["divergence of the encoders"] = "no encoder"
    if not any(name.endswith("joules") for name in case.cost):
        reasons["energy"] = "not reported by the device"
    return reasons
