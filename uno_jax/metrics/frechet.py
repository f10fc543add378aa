"""Fréchet distance between two sets of features."""

import numpy as np
from scipy import linalg


def frechet_distance(features: np.ndarray, reference: np.ndarray) -> float:
    r"""Fréchet distance of two feature sets, each taken as a Gaussian.

    .. math::
      |\mu_1 - \mu_2|^2 + \operatorname{tr}(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2})

    Args:
      features: (N, D) float, N > 1.
      reference: (M, D) float, M > 1.

    Returns:
      The distance, at least 0, in squared units of the features.

    Raises:
      ValueError: if the shapes do not fit.

    References:
      Heusel et al., GANs trained by a two time-scale update rule, arXiv 1706.08500.
    """
    a, b = np.asarray(features, np.float64), np.asarray(reference, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"frechet_distance: expected (N, D) and (M, D) with N, M > 1, got {a.shape}, {b.shape}."
        )
    cov_a, cov_b = (
        np.cov(a, rowvar=False).reshape(a.shape[1], -1),
        np.cov(b, rowvar=False).reshape(b.shape[1], -1),
    )
    # The root's trace through the eigenvalues of the product, which are real and
    # non-negative up to rounding; a singular covariance needs no offset this way.
    eigenvalues = linalg.eigvals(cov_a @ cov_b)
    root_trace = np.sqrt(np.clip(eigenvalues.real, 0.0, None)).sum()
    difference = a.mean(axis=0) - b.mean(axis=0)
    distance = difference @ difference + np.trace(cov_a) + np.trace(cov_b) - 2.0 * root_trace
    return float(max(distance, 0.0))
