"""What the reader must know beside the criteria."""

from typing import Any

from uno_jax.audit import case as cases
from uno_jax.audit.evidence import on_retrained, value_of
from uno_jax.audit.settings import Thresholds


def remarks(
    found: dict[str, Any], judges: dict[str, cases.Judge], thresholds: Thresholds
) -> list[str]:
    """Credit against the control, what judges are worth, how fast the forgotten is relearned.

    Args:
      found: the audit's figures, see `audit.run`.
      judges: everyone who looked.
      thresholds: what counts as what.

    Returns:
      Sentences.
    """
    models, said = found["models"], []
    control = models.get("control")
    if control:
        who = next(name for name, judge in judges.items() if not judge.took_part)
        values = {
            name: value_of(models[name]["generation"]["fractions"][who])
            for name in ("before", "control", "after")
        }
        credit = values["control"] - values["after"]
        said.append(
            f"Of {values['before']:.2%} before, {values['after']:.2%} are left; as many steps of "
            f"plain retain descent leave {values['control']:.2%}. "
            f"{max(credit, 0.0):.2%} are credited to the method."
        )
    for who, share in on_retrained(models).items():
        if share >= thresholds.forgotten:
            said.append(
                f"{who} takes {share:.2%} of the retrained model's samples for the forgotten, "
                "though that model never saw any: pictures between classes, not memory."
            )
    for who, reliability in found["judges"].items():
        recall, alarms = reliability["recall"], reliability["false_alarms"]
        if value_of(recall) < 0.8 or value_of(alarms) > 0.5 * thresholds.forgotten:
            said.append(
                f"{who} counts {value_of(recall):.1%} of the real forget examples as forgotten and "
                f"{value_of(alarms):.1%} of the real retained ones: its figures are to be read "
                "with that."
            )
    curve = models["after"].get("relearning", {}).get("forget", {})
    other = models.get("retrained", {}).get("relearning", {}).get("forget", {})
    for number, marks in curve.items():
        for steps, row in marks.items():
            anew = other.get(number, {}).get(steps)
            # Two retrained models differ too: what counts is more than twice as much.
            least = max(2.0 * anew["fraction"]["high"], thresholds.forgotten) if anew else 1.0
            if row["fraction"]["low"] > least:
                said.append(
                    f"Trained for {steps} steps on {number} of the forget examples it draws the "
                    f"forgotten in {value_of(row['fraction']):.1%} of samples, the retrained model "
                    f"in {value_of(anew['fraction']):.1%}: it relearns faster than from nothing."
                )
                break
    return said
