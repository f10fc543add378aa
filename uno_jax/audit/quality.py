"""What a model can still do: distances to the retained data, coverage, losses."""

from collections.abc import Callable, Mapping

import numpy as np

from uno_jax import metrics
from uno_jax.audit import case as cases
from uno_jax.audit import judging
from uno_jax.audit.case import held_out
from uno_jax.audit.evidence import Evidence, mean_with_interval
from uno_jax.audit.settings import Settings

POINTS = 2000
OWN = "own judge"
"""The space of the features of the first of the audit's own judges."""


def measure(
    name: str,
    evidence: Evidence,
    own: judging.OwnJudge,
    data: cases.Data,
    settings: Settings,
    spaces: Mapping[str, tuple[Callable, np.ndarray]],
) -> dict:
    """Quality of a model's samples that are not of the forgotten class, and its losses.

    A sample of the forgotten class is a matter of forgetting, not of quality: it is left out
    here, so that a model is not called better for drawing none.

    Args:
      name: of the model.
      evidence: samples, features and losses.
      own: the judge whose features are measured in.
      data: the examples.
      settings: how many neighbours.
      spaces: of `spaces_of`, further ones for a Fréchet distance.

    Returns:
      `kept`, how many samples were measured; `frechet` by space, and `frechet_floor`, that of as
      many real examples by chance, in the space of the own judge; `precision`, `recall`; with
      labels `recall_by_class`; with a loss `retain_loss`, of held-out examples if there are
      such.
    """
    classes = evidence.classes[name][own.name]
    # A picture that is not finite is of no class, and of no quality.
    kept = ~np.isin(classes, own.judge.forgotten) & (classes >= 0)
    real = held_out(evidence.real, "retain")
    found: dict = {"kept": int(kept.sum())}
    nothing = kept.sum() <= max(settings.neighbours, 1)
    drawn = evidence.features[name][kept]
    found["frechet"] = {OWN: float("inf") if nothing else metrics.frechet_distance(drawn, real)}
    found["frechet_floor"] = {OWN: _floor(evidence.real, len(drawn))}
    if nothing:
        found |= {"precision": 0.0, "recall": 0.0}
    else:
        found |= metrics.coverage(drawn[:POINTS], real[:POINTS], settings.neighbours)._asdict()
        if own.by_label:
            found["recall_by_class"] = _by_class(drawn[:POINTS], evidence, own, data, settings)
        for space, (embed, reference) in spaces.items():
            found["frechet"][space] = metrics.frechet_distance(
                judging.features(embed, evidence.samples[name][kept]), reference
            )
    if name in evidence.losses:
        found["retain_loss"] = mean_with_interval(held_out(evidence.losses[name], "retain"))
    return found


def spaces_of(
    features: Mapping[str, Callable] | None, evidence: Evidence, data: cases.Data
) -> dict[str, tuple[Callable, np.ndarray]]:
    """Further spaces with what retained examples are in them, which is the same for all models.

    Args:
      features: name to a function from (n, ...) images to (n, D), such as Inception's.
      evidence: the rows of the examples.
      data: the examples.

    Returns:
      Name to that function and the (m, D) features.
    """
    if not features:
        return {}
    rows = held_out(evidence.rows, "retain")
    images = np.asarray(held_out(data.sides, "retain")["image"])[rows]
    return {name: (embed, judging.features(embed, images)) for name, embed in features.items()}


def _floor(real, count: int) -> float:
    """The distance of real retained examples from other ones."""
    others = real.get("retain_held_out")
    half = len(real["retain"]) // 2
    some, others = (
        (real["retain"][::2], real["retain"][1::2]) if others is None else (real["retain"], others)
    )
    some = some[: max(count, 2)]
    return metrics.frechet_distance(some, others) if half > 1 else 0.0


def _by_class(drawn, evidence, own, data, settings) -> dict[str, float]:
    """The share of each retained class' examples that lie within the samples."""
    labels = held_out(data.sides, "retain")["label"][held_out(evidence.rows, "retain")]
    reached = metrics.covered(held_out(evidence.real, "retain"), drawn, settings.neighbours)
    return {
        str(label): float(reached[labels == label].mean())
        for number, label in enumerate(own.classes)
        if number not in own.judge.forgotten and (labels == label).any()
    }
