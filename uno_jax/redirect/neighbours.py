"""Where forgotten latents shall lead: the latent space as a data set.

For a VAE: which region of the latent space draws what is to be forgotten, and what
the retained data alone would have it draw there. No classifier takes part; a region
is known by whose examples are encoded in it.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# scipy comes with jax, and takes longer to import than uno_jax: imported where it is used.

POOL = 20_000  # retained examples to look for targets among


class LatentRedirect(NamedTuple):
    """Latents of both kinds and the pictures they shall draw.

    Attributes:
      retain: `{"latents", "targets"}`, (N, K) and (N, D) float32, of retained examples.
        A target is the original decoder's picture, except inside the forgotten region.
      forget: the same for forgotten examples and for the prior inside their region.
      contested: fraction of retained latents inside the forgotten region.
    """

    retain: dict[str, np.ndarray]
    forget: dict[str, np.ndarray]
    contested: float


def latent_redirect(
    mean: np.ndarray,
    log_variance: np.ndarray,
    images: np.ndarray,
    forget: np.ndarray,
    decode: Callable[[np.ndarray], np.ndarray],
    *,
    seed: int,
    count: int = 8192,
    neighbours: int | None = None,
    region: tuple[float, float] = (0.01, 0.1),
    avoid: float = 14.0,
    blend: int = 50,
    prior: float = 0.3,
) -> LatentRedirect:
    r"""Finds the forgotten region of a latent space and what shall be drawn there.

    With c(z) the fraction of forgotten examples among the nearest posterior samples of
    z, the original decoder draws about :math:`E[x | z] = c\, E_f[x | z] + (1 - c)\,
    E_r[x | z]`. The target is what is left without the forgotten part,

    .. math:: t(z) = (1 - s)\, \text{decode}(z) + s\, \hat E_r[x | z]

    where s rises from 0 to 1 as c(z) passes through `region`, and the mean of retained
    pictures is taken, with Gaussian weights, over the retained examples n nearest by
    :math:`|z - z_n|^2 + (a\, c(z_n)^2)^2`: a 3 encoded amid the 8s looks like an 8, and a
    less contested one farther away is taken instead.

    Args:
      mean: (M, K) posterior means of the training examples, original encoder.
      log_variance: (M, K) posterior log variances.
      images: (M, D) the training examples, as the decoder draws them.
      forget: (M,) bool, true for examples to forget.
      decode: the original decoder, (N, K) latents to (N, D) pictures.
      seed: of the sampling.
      count: latents on each side.
      neighbours: how many nearest samples c(z) counts; M / 300, at least 25, if
        `None`.
      region: c at which the redirect begins and at which it is complete,
        0 <= begin < complete <= 1.
      avoid: :math:`a \ge 0`, how far to go for a target without contest, in standard
        deviations of the prior: a c² of detour for an example of contest c. Larger
        forgets more and changes more.
      blend: how many retained pictures a target is the mean of, at most.
      prior: fraction of the forget side drawn from the prior N(0, I) inside the
        region, rather than from forgotten posteriors; where samples are drawn
        from, not only where examples lie.

    Returns:
      A `LatentRedirect`.

    Raises:
      ValueError: if shapes do not fit, a side is empty, the region is no interval, or
        `avoid` is negative.
    """
    from scipy.spatial import cKDTree

    forget = np.asarray(forget)
    if (
        mean.shape != log_variance.shape
        or not len(mean) == len(images) == len(forget)
        or forget.dtype != bool
    ):
        raise ValueError(
            "latent_redirect: expected (M, K) means and log variances, (M, D) images and an (M,) "
            f"boolean mask, got {mean.shape}, {log_variance.shape}, {images.shape} and "
            f"{forget.dtype} {forget.shape}."
        )
    if forget.all() or not forget.any():
        raise ValueError(
            f"latent_redirect: expected examples of both kinds, got {forget.sum()} to forget "
            f"of {len(forget)}."
        )
    begin, complete = region
    if not 0 <= begin < complete <= 1:
        raise ValueError(f"region: expected 0 <= begin < complete <= 1, got {region}.")
    if not avoid >= 0:
        raise ValueError(f"avoid: expected a number of at least 0, got {avoid}.")
    rng = np.random.default_rng(seed)
    k = min(max(25, len(mean) // 300) if neighbours is None else neighbours, len(mean))

    def sample(rows):
        return mean[rows] + np.exp(0.5 * log_variance[rows]) * rng.normal(size=mean[rows].shape)

    everywhere = sample(np.arange(len(mean)))
    samples = cKDTree(everywhere)

    def contest(z):
        return forget[samples.query(z, k, workers=-1)[1].reshape(len(z), k)].mean(axis=1)

    kept, gone = np.flatnonzero(~forget), np.flatnonzero(forget)
    pool = rng.permutation(kept)[:POOL]
    height = avoid * contest(everywhere[pool]) ** 2

    def with_targets(z):
        share = np.clip((contest(z) - begin) / (complete - begin), 0.0, 1.0)
        z = z.astype(np.float32)
        targets = np.array(decode(z), np.float32)
        inside = np.flatnonzero(share > 0)
        retained = _local_mean(
            np.column_stack([everywhere[pool], height]),
            images[pool],
            np.column_stack([z[inside], np.zeros(len(inside))]),
            blend,
        )
        targets[inside] += share[inside, None] * (retained - targets[inside])
        return {"latents": z, "targets": targets}, float(np.mean(share > 0))

    retain, contested = with_targets(sample(rng.choice(kept, count)))
    drawn = rng.normal(size=(4 * count, mean.shape[1]))
    drawn = drawn[contest(drawn) > begin][: int(prior * count)]
    own = sample(rng.choice(gone, count - len(drawn)))
    away, _ = with_targets(rng.permutation(np.concatenate([own, drawn])))
    return LatentRedirect(retain, away, contested)


def _local_mean(points, images, z, blend):
    """Mean image of the nearest points of each z, with Gaussian weights."""
    from scipy import sparse
    from scipy.spatial import cKDTree

    k = min(blend, len(points))
    distance, index = (part.reshape(len(z), k) for part in cKDTree(points).query(z, k, workers=-1))
    # The width follows the density: half the distance of the farthest one taken.
    width = np.maximum(0.5 * distance[:, -1:], np.finfo(np.float32).tiny)
    weights = np.exp(-0.5 * (distance / width) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.arange(0, len(z) * k + 1, k)
    table = sparse.csr_matrix((weights.ravel(), index.ravel(), rows), (len(z), len(points)))
    return np.asarray(table @ images, np.float32)
