"""Precision and recall of samples, by the balls around their nearest neighbours."""

from typing import NamedTuple

import numpy as np
from scipy.spatial import distance

CHUNK = 1000


class Coverage(NamedTuple):
    """How two sets of features cover each other.

    Attributes:
      precision: share of the samples that lie within the reference, in [0, 1].
      recall: share of the reference that lies within the samples, in [0, 1].
    """

    precision: float
    recall: float


def coverage(samples: np.ndarray, reference: np.ndarray, neighbours: int = 3) -> Coverage:
    r"""Precision and recall of samples.

    A point lies within a set if some point of the set is nearer to it than that one is to
    its own k-th nearest neighbour in the set.

    Args:
      samples: (N, D) float, features of samples, N > k.
      reference: (M, D) float, of the data, M > k.
      neighbours: k, at least 1.

    Returns:
      A `Coverage`.

    Raises:
      ValueError: if the shapes do not fit or there are too few points.

    Examples:
      >>> import numpy as np
      >>> from uno_jax import metrics
      >>> data = np.arange(10.0)[:, None]
      >>> metrics.coverage(data[:5], data, neighbours=1)
      Coverage(precision=1.0, recall=0.6)

    References:
      Kynkäänniemi et al., Improved precision and recall metric, arXiv 1904.06991.
    """
    a, b = np.asarray(samples, np.float64), np.asarray(reference, np.float64)
    fits = a.ndim == b.ndim == 2 and a.shape[1] == b.shape[1]
    if not fits or neighbours < 1 or min(len(a), len(b)) <= neighbours:
        raise ValueError(
            f"coverage: expected (N, D) and (M, D) with N and M above {max(neighbours, 1)} "
            f"neighbours, got {a.shape}, {b.shape} and {neighbours}."
        )
    return Coverage(_within(a, b, neighbours), _within(b, a, neighbours))


def _within(points, centres, neighbours) -> float:
    radii = np.concatenate(
        [
            # The nearest of all is the point itself.
            np.partition(distance.cdist(part, centres), neighbours, axis=1)[:, neighbours]
            for part in _parts(centres)
        ]
    )
    inside = [(distance.cdist(part, centres) <= radii).any(axis=1) for part in _parts(points)]
    return float(np.concatenate(inside).mean())


def _parts(points):
    return (points[start : start + CHUNK] for start in range(0, len(points), CHUNK))
