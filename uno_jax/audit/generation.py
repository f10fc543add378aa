"""What a model draws: how often the forgotten class, and what is near it."""

import numpy as np

from uno_jax import metrics
from uno_jax.audit import case as cases
from uno_jax.audit import judging
from uno_jax.audit.evidence import Evidence, value_of
from uno_jax.audit.settings import Settings

SHOWN = 8
POINTS = 2000


def measure(
    name: str,
    evidence: Evidence,
    judges: dict[str, cases.Judge],
    own: judging.OwnJudge,
    data: cases.Data,
    settings: Settings,
) -> dict:
    """What every judge says of a model's samples.

    Args:
      name: of the model.
      evidence: what the judges take its samples for, and their features.
      judges: everyone who looks.
      own: the judge whose classes are counted.
      data: the examples.
      settings: how many neighbours.

    Returns:
      `fractions`, a proportion per judge; `spread`, by how much those of judges that took no
      part differ; with labels `histogram` and how far it is from that of the retained examples,
      `kl` in nats and `total_variation` in [0, 1]; `near_forget`, the share of samples within
      the balls around forget examples that reach to their nearest others.
    """
    seen = evidence.classes[name]
    fractions = {who: judging.counted(judge, seen[who])._asdict() for who, judge in judges.items()}
    independent = [value_of(f) for who, f in fractions.items() if not judges[who].took_part]
    found = {"fractions": fractions, "spread": max(independent) - min(independent)}
    if own.by_label:
        classes = seen[own.name]
        counts = np.bincount(classes[classes >= 0], minlength=len(own.classes))
        expected = np.bincount(
            np.searchsorted(own.classes, data.retain["label"]), minlength=len(own.classes)
        )
        found["histogram"] = {str(c): int(n) for c, n in zip(own.classes, counts, strict=True)}
        found["kl"], found["total_variation"] = divergences(expected, counts)
    inside = metrics.covered(
        evidence.features[name][:POINTS], evidence.real["forget"], settings.neighbours
    )
    found["near_forget"] = metrics.proportion(int(inside.sum()), len(inside))._asdict()
    return found


def divergences(expected: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    r"""How far counts are from expected ones.

    .. math:: \sum_c p_c \log (p_c / q_c), \quad \tfrac12 \sum_c |p_c - q_c|

    Args:
      expected: (C,) counts, from which p.
      counts: (C,) counts, from which q, with half a count added to each for the logarithm.

    Returns:
      The KL divergence in nats and the total variation, in [0, 1].
    """
    p = expected / expected.sum()
    smooth = (counts + 0.5) / (counts.sum() + 0.5 * len(counts))
    q = counts / max(counts.sum(), 1)
    support = p > 0
    kl = np.sum(p[support] * np.log(p[support] / smooth[support]))
    return float(max(kl, 0.0)), float(0.5 * np.abs(p - q).sum())


def most_alike(
    name: str, evidence: Evidence, own: judging.OwnJudge, data: cases.Data
) -> dict[str, np.ndarray]:
    """A model's samples that are most like the forget set, and the nearest real examples.

    Args:
      name: of the model.
      evidence: its samples and features.
      own: the judge whose logits and features are used.
      data: the examples.

    Returns:
      Rows of `SHOWN` images: samples, nearest forget examples, nearest retained ones.
    """
    images = np.nan_to_num(evidence.samples[name])
    logits = judging.features(own.judge.classify, images)
    gone = np.isin(np.arange(logits.shape[1]), own.judge.forgotten)
    odds = logits[:, gone].max(axis=1) - logits[:, ~gone].max(axis=1)
    best = np.argsort(-odds, kind="stable")[:SHOWN]
    rows = {"samples most like the forget set": images[best]}
    for side in ("forget", "retain"):
        near = nearest(evidence.features[name][best], evidence.real[side])
        shown = getattr(data, side)["image"][evidence.rows[side][near]]
        rows[f"nearest of the {side} set"] = np.asarray(shown)
    return rows


def nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(N,) the row of the nearest of some centres to each point."""
    distances = (
        (points**2).sum(axis=1)[:, None] - 2.0 * points @ centres.T + (centres**2).sum(axis=1)
    )
    return distances.argmin(axis=1)
