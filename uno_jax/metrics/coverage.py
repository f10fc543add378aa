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
    inside, reached = covered(a, b, neighbours), covered(b, a, neighbours)
    return Coverage(float(inside.mean()), float(reached.mean()))


def covered(points: np.ndarray, centres: np.ndarray, neighbours: int = 3) -> np.ndarray:
    """Which points lie within a set: nearer to a centre than its k-th nearest among them.

    Args:
      points: (N, D) float.
      centres: (M, D) float, the set, M > k.
      neighbours: k, at least 1.

    Returns:
      (N,) bool.

    Raises:
      ValueError: if the shapes do not fit or there are too few centres.

    Examples:
      >>> import numpy as np
      >>> from uno_jax import metrics
      >>> metrics.covered(np.array([[0.5], [9.0]]), np.arange(4.0)[:, None], neighbours=1)
      array([ True, False])
    """
    points, centres = np.asarray(points, np.float64), np.asarray(centres, np.float64)
    fits = points.ndim == centres.ndim == 2 and points.shape[1] == centres.shape[1]
    if not fits or neighbours < 1 or len(centres) <= neighbours:
        raise ValueError(
            f"covered: expected (N, D) and (M, D) with M above {max(neighbours, 1)} neighbours, "
            f"got {points.shape}, {centres.shape} and {neighbours}."
        )
    radii = np.concatenate(
        [
            # The nearest of all is the point itself.
            np.partition(distance.cdist(part, centres), neighbours, axis=1)[:, neighbours]
            for part in _parts(centres)
        ]
    )
    inside = [(distance.cdist(part, centres) <= radii).any(axis=1) for part in _parts(points)]
    return np.concatenate(inside) if inside else np.zeros(0, bool)


def _parts(points):
    return (points[start : start + CHUNK] for start in range(0, len(points), CHUNK))
