"""Where forgotten latents shall lead: the latent space as a data set.

For a VAE: which region of the latent space draws what is to be forgotten, and for
each latent there the nearest one that draws something retained. No classifier
takes part; a region is known by whose examples are encoded there.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree


class LatentRedirect(NamedTuple):
    """Latents of both kinds and the latents whose pictures they shall draw.

    Attributes:
      retain: `{"latents", "targets"}`, (N, K) float32 each, of retained examples.
        A target equals its latent except inside the forgotten region.
      forget: the same for forgotten examples and for the prior inside their region.
      pool_size: retained latents that were allowed as targets.
      contested: fraction of retained latents inside the forgotten region.
    """

    retain: dict[str, np.ndarray]
    forget: dict[str, np.ndarray]
    pool_size: int
    contested: float


def latent_redirect(
    mean: np.ndarray,
    log_variance: np.ndarray,
    forget: np.ndarray,
    *,
    seed: int,
    count: int = 16_384,
    neighbours: int | None = None,
    region: float = 0.3,
    pool: float = 0.01,
    prior: float = 0.5,
) -> LatentRedirect:
    """Finds the forgotten region of a latent space and a way out of it.

    With c(z) the fraction of forgotten examples among the nearest posterior
    samples of z: z is in the region where c(z) is at least `region`; its target is
    the nearest retained posterior mean with c of at most `pool`.

    Args:
      mean: (M, K) posterior means of the training examples, original encoder.
      log_variance: (M, K) posterior log variances.
      forget: (M,) bool, true for examples to forget.
      seed: of the sampling.
      count: latents on each side.
      neighbours: how many nearest samples c(z) counts; M / 300, at least 25, if
        `None`.
      region: c(z) from which on a latent is redirected, in (0, 1].
      pool: c(z) up to which a retained mean may be a target, in [0, 1).
      prior: fraction of the forget side drawn from the prior N(0, I) inside the
        region, rather than from forgotten posteriors; where samples are drawn
        from, not only where examples lie.

    Returns:
      A `LatentRedirect`.

    Raises:
      ValueError: if shapes do not fit, a side is empty, or no retained mean may be
        a target.
    """
    forget = np.asarray(forget)
    if mean.shape != log_variance.shape or forget.shape != mean.shape[:1] or forget.dtype != bool:
        raise ValueError(
            "latent_redirect: expected (M, K) means and log variances and an (M,) boolean mask, "
            f"got {mean.shape}, {log_variance.shape} and {forget.dtype} {forget.shape}."
        )
    if forget.all() or not forget.any():
        raise ValueError(
            f"latent_redirect: expected examples of both kinds, got {forget.sum()} to forget "
            f"of {len(forget)}."
        )
    rng = np.random.default_rng(seed)
    k = min(max(25, len(mean) // 300) if neighbours is None else neighbours, len(mean))

    def sample(rows):
        return mean[rows] + np.exp(0.5 * log_variance[rows]) * rng.normal(size=mean[rows].shape)

    samples = cKDTree(sample(np.arange(len(mean))))

    def contest(z):
        return forget[samples.query(z, k)[1].reshape(len(z), k)].mean(axis=1)

    kept, gone = np.flatnonzero(~forget), np.flatnonzero(forget)
    candidates = mean[rng.permutation(kept)[:8192]]
    allowed = candidates[contest(candidates) <= pool]
    if not len(allowed):
        raise ValueError(
            f"latent_redirect: expected some of {len(candidates)} retained means to have at most "
            f"a fraction {pool} of forgotten neighbours, got none; raise `pool`."
        )
    nearest = cKDTree(allowed)

    def with_targets(z):
        inside = contest(z) >= region
        targets = np.where(inside[:, None], allowed[nearest.query(z)[1]], z)
        pairs = {"latents": z.astype(np.float32), "targets": targets.astype(np.float32)}
        return pairs, float(inside.mean())

    retain, contested = with_targets(sample(rng.choice(kept, count)))
    drawn = rng.normal(size=(4 * count, mean.shape[1]))
    drawn = drawn[contest(drawn) >= region][: int(prior * count)]
    own = sample(rng.choice(gone, count - len(drawn)))
    away, _ = with_targets(rng.permutation(np.concatenate([own, drawn])))
    return LatentRedirect(retain, away, len(allowed), contested)
