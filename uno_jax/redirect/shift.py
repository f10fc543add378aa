"""Where the forgotten lie in a latent space of many dimensions, and where to go instead."""

from typing import NamedTuple

import numpy as np

# scipy comes with jax, and takes longer to import than uno_jax: imported where it is used.


class LatentShift(NamedTuple):
    r"""The region of the forgotten and each latent's retained counterpart.

    Attributes:
      direction: (K,) :math:`w = \Sigma^{-1} \delta`.
      offset: :math:`b`, so that :math:`w^\top z + b` is the log odds of the forgotten.
      difference: (K,) :math:`\delta = \mu_f - \mu_r`, of the two means.
      share: largest c that is left, in (0, 1).
    """

    direction: np.ndarray
    offset: float
    difference: np.ndarray
    share: float

    def contest(self, latents: np.ndarray) -> np.ndarray:
        """c(z), the share of the forgotten at each of (N, K) latents, (N,) in [0, 1]."""
        from scipy import special

        return special.expit(latents @ self.direction + self.offset)

    def __call__(self, latents: np.ndarray) -> np.ndarray:
        """The counterparts, (N, K) float32, of (N, K) latents; themselves outside."""
        from scipy import special

        odds = latents @ self.direction + self.offset
        excess = np.maximum(odds - special.logit(self.share), 0.0)
        steps = excess / (self.direction @ self.difference)
        return (latents - steps[:, None] * self.difference).astype(np.float32)


def latent_shift(
    mean: np.ndarray,
    log_variance: np.ndarray,
    forget: np.ndarray,
    *,
    share: float = 0.1,
) -> LatentShift:
    r"""Finds the forgotten region as a linear discriminant of the posteriors.

    With the two sides as Gaussians of one covariance :math:`\Sigma` (of the means within
    a side, plus the mean posterior variance), the share of the forgotten at z is

    .. math:: c(z) = \sigma(w^\top z + b), \quad w = \Sigma^{-1} \delta, \quad
      \delta = \mu_f - \mu_r

    and δ is the way from one side to the other that changes nothing else: subtracting it
    takes one Gaussian to the other. The counterpart is the first latent on that way where
    the share has fallen to `share`,

    .. math:: T(z) = z - \frac{\max(w^\top z + b - \operatorname{logit}(\text{share}),\, 0)}
      {w^\top \delta}\, \delta

    Neighbours, as in `latent_redirect`, mean nothing in a hundred dimensions; two means
    and a covariance do.

    Args:
      mean: (M, K) posterior means of the training examples, original encoder.
      log_variance: (M, K) posterior log variances.
      forget: (M,) bool, true for examples to forget.
      share: largest share of the forgotten that is left anywhere, in (0, 1). Smaller
        forgets more and changes more of what is retained.

    Returns:
      A `LatentShift`.

    Raises:
      ValueError: if shapes do not fit, a side is empty, or `share` is out of range.

    Examples:
      >>> import numpy as np
      >>> from uno_jax import redirect
      >>> mean = np.array([[-2.0, 0], [-2, 1], [2, 0], [2, 1]])
      >>> shift = redirect.latent_shift(mean, np.zeros((4, 2)), np.array([0, 0, 1, 1], bool))
      >>> shift(np.array([[2.0, 0.3], [-2.0, 0.3]])).round(2)
      array([[-0.55,  0.3 ],
             [-2.  ,  0.3 ]], dtype=float32)
    """
    from scipy import linalg, special

    forget = np.asarray(forget)
    if (
        mean.ndim != 2
        or mean.shape != log_variance.shape
        or forget.shape != mean.shape[:1]
        or forget.dtype != bool
    ):
        raise ValueError(
            "latent_shift: expected (M, K) means and log variances and an (M,) boolean mask, "
            f"got {mean.shape}, {log_variance.shape} and {forget.dtype} {forget.shape}."
        )
    if forget.all() or not forget.any():
        raise ValueError(
            f"latent_shift: expected examples of both kinds, got {forget.sum()} to forget "
            f"of {len(forget)}."
        )
    if not 0 < share < 1:
        raise ValueError(f"share: expected a number between 0 and 1, got {share}.")
    mean = np.asarray(mean, np.float64)
    centres = mean[~forget].mean(axis=0), mean[forget].mean(axis=0)
    within = mean - np.where(forget[:, None], centres[1], centres[0])
    spread = np.exp(np.asarray(log_variance, np.float64)).mean(axis=0)
    covariance = within.T @ within / len(mean) + np.diag(spread)
    difference = centres[1] - centres[0]
    direction = linalg.solve(covariance, difference, assume_a="pos")
    offset = special.logit(forget.mean()) - 0.5 * direction @ (centres[0] + centres[1])
    return LatentShift(direction, float(offset), difference, share)


def shifted_latents(
    shift: LatentShift,
    mean: np.ndarray,
    log_variance: np.ndarray,
    forget: np.ndarray,
    *,
    seed: int,
    count: int = 8192,
    prior: float = 0.5,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Samples latents of both sides with their counterparts.

    Args:
      shift: the region and the counterparts.
      mean: (M, K) posterior means of the training examples.
      log_variance: (M, K) posterior log variances.
      forget: (M,) bool, true for examples to forget.
      seed: of the sampling.
      count: latents on each side.
      prior: fraction of each side drawn from the prior N(0, I), where samples come
        from, rather than from posteriors: outside the region on the retain side,
        inside it on the forget side.

    Returns:
      (retain, forget), each `{"latents", "shifted"}`, (count, K) float32.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(4 * count, mean.shape[1]))
    inside = shift.contest(drawn) > shift.share
    sides = []
    for rows, at in ((~forget, ~inside), (forget, inside)):
        free = drawn[at][: int(prior * count)]
        chosen = rng.choice(np.flatnonzero(rows), count - len(free))
        own = mean[chosen] + np.exp(0.5 * log_variance[chosen]) * rng.normal(
            size=(len(chosen), mean.shape[1])
        )
        latents = rng.permutation(np.concatenate([own, free])).astype(np.float32)
        sides.append({"latents": latents, "shifted": shift(latents)})
    return sides[0], sides[1]
