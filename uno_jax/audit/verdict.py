"""The verdict: criteria with their numbers, and what follows from them."""

from typing import NamedTuple

from uno_jax.audit import case as cases
from uno_jax.audit import remarks
from uno_jax.audit.evidence import on_retrained, value_of
from uno_jax.audit.settings import Thresholds

FORGOTTEN = "forgotten"
REBOUNDS = "forgotten but rebounds"
FOOLED = "classifier fooled"
LOST = "quality lost"
NOT_FORGOTTEN = "not forgotten"
VERDICTS = (NOT_FORGOTTEN, FOOLED, LOST, REBOUNDS, FORGOTTEN)
"""From the worst; the first that applies is said."""

MEANING = {
    REBOUNDS: "The model {draws}, but training it on retained data alone brings it back.",
    FOOLED: "Some judges no longer see what was to be forgotten; others do. The samples have "
    "learned to pass for something else.",
    LOST: "The model {draws}, but has lost what it was to keep.",
    NOT_FORGOTTEN: "The model still draws, or still knows, what it was to forget.",
}


ASKED = {
    "memory": ("does not know it better than it should", "still knows it"),
    "relearning": ("does not learn it again from retained data", "learns it again"),
}
"""By group of criteria that not every audit asks: what is said if it is met, what if unasked."""


class Criterion(NamedTuple):
    """One question of the verdict.

    Attributes:
      name: of the criterion.
      group: `generation`, `agreement`, `memory`, `quality` or `relearning`.
      value: what was measured.
      low: lower end of its 95 % interval, or None.
      high: upper end of its 95 % interval, or None.
      total: sample size, or None.
      limit: what it is compared with.
      passed: whether it is met.
      what: the question in words.
    """

    name: str
    group: str
    value: float
    low: float | None
    high: float | None
    total: int | None
    limit: float
    passed: bool
    what: str


class Verdict(NamedTuple):
    """What the audit says.

    Attributes:
      name: one of `VERDICTS`.
      sentence: what that means.
      criteria: all that were asked.
      remarks: what else the reader must know.
    """

    name: str
    sentence: str
    criteria: tuple[Criterion, ...]
    remarks: tuple[str, ...]


def decide(found: dict, judges: dict[str, cases.Judge], thresholds: Thresholds) -> Verdict:
    """Asks every criterion that can be asked and says the verdict.

    Args:
      found: the audit's figures, see `audit.run`.
      judges: everyone who looked.
      thresholds: what counts as what.

    Returns:
      A `Verdict`.
    """
    models = found["models"]
    drawn = _generation(models, judges, thresholds)
    criteria = [
        *drawn,
        *_agreement(models, judges, drawn, thresholds),
        *_memory(models, thresholds),
        *_quality(models, thresholds),
        *_relearning(models, thresholds),
    ]
    failed = {criterion.group for criterion in criteria if not criterion.passed}
    if "agreement" in failed:
        # Judges differ: if none of them is content, there is nothing to be fooled about.
        seen, allowed = models["after"]["generation"]["fractions"], on_retrained(models)
        content = [
            value_of(fraction) < thresholds.forgotten
            or value_of(fraction) <= allowed.get(who, -1.0)
            for who, fraction in seen.items()
        ]
        name = FOOLED if any(content) else NOT_FORGOTTEN
    elif any(not c.passed for c in drawn) or "memory" in failed:
        name = NOT_FORGOTTEN
    elif "quality" in failed:
        name = LOST
    else:
        name = REBOUNDS if "relearning" in failed else FORGOTTEN
    said = remarks.remarks(found, judges, thresholds)
    return Verdict(name, _sentence(name, criteria, thresholds), tuple(criteria), tuple(said))


def _sentence(name, criteria, thresholds) -> str:
    """What a verdict means; of one that has forgotten nothing is said that was not asked."""
    draws = "no longer draws what it was to forget"
    if any(c.group == "generation" and c.value >= thresholds.forgotten for c in criteria):
        draws = "draws what it was to forget no more often than the retrained model"
    if name != FORGOTTEN:
        return MEANING[name].format(draws=draws)
    groups = {criterion.group for criterion in criteria}
    said = [draws, "keeps its quality"]
    unasked = [question for group, (_, question) in ASKED.items() if group not in groups]
    if "memory" in groups:
        said.insert(1, ASKED["memory"][0])
    if "relearning" in groups:
        said.append(ASKED["relearning"][0])
    comma = "," if len(said) > 2 else ""
    sentence = f"The model {', '.join(said[:-1])}{comma} and {said[-1]}."
    return sentence + (f" Whether it {' or '.join(unasked)} was not asked." if unasked else "")


def _of_proportion(name, group, proportion, limit, what, least=-1.0) -> Criterion:
    """Met below the limit, or at most at `least`."""
    value = value_of(proportion)
    ends = proportion["low"], proportion["high"], proportion["total"]
    passed = value < limit or value <= least
    return Criterion(name, group, value, *ends, max(limit, least), passed, what)


def _generation(models, judges, thresholds):
    baseline = on_retrained(models)
    return [
        _of_proportion(
            f"drawn, {who}",
            "generation",
            models["after"]["generation"]["fractions"][who],
            thresholds.forgotten,
            f"Fraction of samples that {who} takes for the forgotten.",
            baseline.get(who, -1.0),
        )
        for who, judge in judges.items()
        if not judge.took_part
    ]


def _agreement(models, judges, drawn, thresholds):
    fractions = models["after"]["generation"]["fractions"]
    values = {who: value_of(fraction) for who, fraction in fractions.items()}
    low, high = min(values, key=values.get), max(values, key=values.get)
    spread = values[high] - values[low]
    baseline = on_retrained(models)
    usual = max(0.0, baseline[high] - baseline[low]) if baseline else 0.0
    limit = thresholds.disagreement + usual
    # Counts of few samples differ by chance: only intervals apart are a disagreement.
    apart = fractions[high]["low"] > fractions[low]["high"]
    what = f"Difference of what {high} and {low} take for the forgotten."
    ends = (
        max(0.0, fractions[high]["low"] - fractions[low]["high"]),
        fractions[high]["high"] - fractions[low]["low"],
    )
    passed = not (apart and spread > limit)
    # Where each sees less than it must, nobody is fooled by a difference; unless one took part,
    # whose own word is what a method may have been after.
    independent = not any(judge.took_part for judge in judges.values())
    if not passed and independent and all(c.passed for c in drawn):
        passed, what = True, f"{what[:-1]}: each sees less than its own limit."
    total = fractions[high]["total"]
    return [Criterion("disagreement", "agreement", spread, *ends, total, limit, passed, what)]


def _memory(models, thresholds):
    found = []
    after = models["after"]
    gap = after.get("influence", {}).get("before", {}).get("forget_gap")
    if gap:
        # A retrained model that knows them as well shows that they are no loss to know.
        reference = models.get("retrained", {}).get("influence", {}).get("before", {})
        expected, what = (
            models["before"]["memory"]["deviation"],
            "standard deviation among examples",
        )
        if "forget_gap" in reference:
            expected = reference["forget_gap"]["value"] if reference["forget_gap"]["low"] > 0 else 0
            what = "rise by retraining"
        if expected > 0:
            parts = [gap[end] / expected for end in ("value", "low", "high")]
            found.append(
                Criterion(
                    "no longer known", "memory", *parts, gap["total"], thresholds.explained,
                    parts[0] > thresholds.explained,
                    f"Rise of the loss on forget examples, in parts of the {what}: above the "
                    "limit.",
                )
            )  # fmt: skip
    for attack, figures in after.get("membership", {}).items():
        reference = models.get("retrained", {}).get("membership", {}).get(attack)
        chance = reference["auc"] if reference else 0.5
        limit = max(chance, 0.5) + thresholds.attack
        low, high = figures["auc_interval"]
        total = figures["members"] + figures["others"]
        what = f"Area under the curve of a membership attack by {attack}."
        # Only what is above by more than chance counts against the model.
        passed = low <= limit
        found.append(
            Criterion(f"membership, {attack}", "memory", figures["auc"], low, high, total, limit,
                      passed, what)
        )  # fmt: skip
    return found


def _quality(models, thresholds):
    before, after = models["before"]["quality"], models["after"]["quality"]
    # Retraining costs quality too: nothing better can be asked for than the worse of the two.
    yardstick = models.get("retrained", {}).get("quality", before)
    kept = after["kept"]
    found = []
    for space, distance in after["frechet"].items():
        # So far apart are real examples too, by their small number.
        floor = before["frechet_floor"].get(space, 0.0)
        worse = max(before["frechet"][space], yardstick["frechet"][space])
        limit = thresholds.distance * worse + floor
        what = f"Fréchet distance to the retained data in the space of {space}."
        found.append(
            Criterion(f"Fréchet distance, {space}", "quality", distance, None, None, kept, limit,
                      distance <= limit, what)
        )  # fmt: skip
    worse = {name: min(before[name], yardstick[name]) for name in ("precision", "recall")}
    limits = {
        "precision": worse["precision"] - thresholds.precision,
        "recall": worse["recall"] * (1.0 - thresholds.recall),
    }
    for name, limit in limits.items():
        found.append(
            Criterion(name, "quality", after[name], None, None, kept, limit,
                      after[name] >= limit, f"{name.capitalize()} of the samples: above the limit.")
        )  # fmt: skip
    gap = models["after"].get("influence", {}).get("before", {}).get("retain_gap")
    if gap and "retain_loss" in before:
        scale = abs(before["retain_loss"]["value"]) or 1.0
        parts = [gap[end] / scale for end in ("value", "low", "high")]
        same = models.get("retrained", {}).get("influence", {}).get("before", {})
        usual = max(0.0, same["retain_gap"]["value"]) / scale if "retain_gap" in same else 0.0
        limit = thresholds.loss + usual
        # A model whose loss is not a number has lost it; every comparison with it is false.
        found.append(
            Criterion("retained loss", "quality", *parts, gap["total"], limit, parts[0] <= limit,
                      "Rise of the loss on retained examples, in parts of what it was.")
        )  # fmt: skip
    return found


def _relearning(models, thresholds):
    after = models["after"].get("relearning")
    found = []
    for trainer, marks in (after or {}).get("retain", {}).items():
        for steps, proportion in marks.items():
            same = models.get("retrained", {}).get("relearning", {}).get("retain", {})
            base = value_of(same[trainer][steps]) if same else 0.0
            limit = max(thresholds.forgotten, base) + thresholds.rebound
            what = f"Fraction after {steps} steps of retain descent ({trainer})."
            name = f"rebound, {steps} steps, {trainer}"
            found.append(_of_proportion(name, "relearning", proportion, limit, what))
    return found
