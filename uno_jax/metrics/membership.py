"""Membership inference: can the loss tell who was in the training set?"""

from typing import NamedTuple

import numpy as np

FALSE_POSITIVES = 0.01
CELLS = 2**20
"""Counts of values that are held at a time, of all resamples in work."""


class Attack(NamedTuple):
    """What an attack that thresholds a score achieves, each with a 95 % bootstrap interval.

    Attributes:
      auc: area under the curve of true over false positive rates, in [0, 1]; 1/2 is chance.
      auc_interval: its interval.
      tpr: true positive rate at `false_positives`, in [0, 1].
      tpr_interval: its interval.
      false_positives: the false positive rate that `tpr` is taken at.
      members: number of members.
      others: number of non-members.
    """

    auc: float
    auc_interval: tuple[float, float]
    tpr: float
    tpr_interval: tuple[float, float]
    false_positives: float
    members: int
    others: int


def attack(
    members: np.ndarray,
    others: np.ndarray,
    *,
    false_positives: float = FALSE_POSITIVES,
    resamples: int = 1000,
    seed: int = 0,
) -> Attack:
    r"""Attacks by a threshold on a score that is higher for members.

    .. math:: \mathrm{AUC} = P(s_m > s_o) + \tfrac12 P(s_m = s_o)

    Args:
      members: (N,) float scores of training examples, for example minus their loss.
      others: (M,) float scores of examples of the same kind that were held out.
      false_positives: rate at which the true positive rate is taken, in (0, 1).
      resamples: bootstrap resamples, of members and others each, at least 1.
      seed: of the resamples.

    Returns:
      An `Attack`.

    Raises:
      ValueError: if there are no scores, some are not finite, or a number is out of range.

    Examples:
      >>> import numpy as np
      >>> from uno_jax import metrics
      >>> found = metrics.attack(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0]))
      >>> print(f"{found.auc:.3f}")
      0.778

    References:
      Yeom et al., arXiv 1709.01604; Carlini et al., Membership inference attacks from first
      principles, arXiv 2112.03570.
    """
    a, b = (np.asarray(scores, np.float64).ravel() for scores in (members, others))
    if not len(a) or not len(b) or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(
            f"attack: expected finite scores of members and others, got {len(a)} and {len(b)}, "
            f"{int((~np.isfinite(a)).sum())} and {int((~np.isfinite(b)).sum())} of them not finite."
        )
    if not 0 < false_positives < 1 or resamples < 1:
        raise ValueError(
            "attack: expected false_positives in (0, 1) and resamples of at least 1, got "
            f"{false_positives} and {resamples}."
        )
    values, places = np.unique(np.concatenate([a, b]), return_inverse=True)
    places = places[: len(a)], places[len(a) :]
    rng = np.random.default_rng(seed)
    chunk = max(1, CELLS // len(values))

    def figures(sides):
        return _figures(*(_counts(rows, len(values)) for rows in sides), false_positives)

    draws = np.concatenate(
        [
            figures([own[rng.integers(0, len(own), (count, len(own)))] for own in places])
            for count in np.diff([*range(0, resamples, chunk), resamples])
        ]
    )
    low, high = np.percentile(draws, (2.5, 97.5), axis=0)
    ((auc, tpr),) = figures([own[None] for own in places]).tolist()
    intervals = [(float(x), float(y)) for x, y in zip(low, high, strict=True)]
    return Attack(auc, intervals[0], tpr, intervals[1], false_positives, len(a), len(b))


def _counts(places, bins):
    """How often each value is in each row of (R, N) places among the values: (R, bins)."""
    rows = np.arange(len(places))[:, None] * bins
    return np.bincount((rows + places).ravel(), minlength=len(places) * bins).reshape(-1, bins)


def _figures(members, others, false_positives) -> np.ndarray:
    """(R, 2) areas and rates, of (R, bins) counts of values that rise."""
    count, other_count = members[0].sum(), others[0].sum()
    below = np.cumsum(others, axis=1)
    # Pairs are won above, ties count as halves, as in a Mann-Whitney test.
    pairs = np.sum(members * (below - 0.5 * others), axis=1)
    # At most so many of the others may lie above the threshold.
    allowed = int(false_positives * other_count)
    above = np.cumsum(members[:, ::-1], axis=1)[:, ::-1] - members
    threshold = np.argmax(below >= other_count - allowed, axis=1)
    caught = np.take_along_axis(above, threshold[:, None], axis=1)[:, 0]
    return np.stack([pairs / (count * other_count), caught / count], axis=1)
