"""Feature spaces of others, for Fréchet distances."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from uno_jax import foreign, metrics
from uno_jax.audit import networks
from uno_jax.audit.case import Data


def inception(weights: str | Path, data: Data) -> Callable:
    """Inception's features of pictures in the range of the data, grey ones or in colour.

    Args:
      weights: npz or safetensors file, with the names of pt_inception-2015-12-05.
      data: the examples, whose least and greatest value are taken for black and white.

    Returns:
      From (n, ...) pictures to (n, 2048) features.

    Raises:
      ValueError: if the examples are no pictures, or a weight is missing.

    References:
      Heusel et al., arXiv 1706.08500.
    """
    shape = networks.picture_shape(np.shape(data.retain["image"])[1:])
    if shape is None:
        raise ValueError(
            f"inception: expected pictures, got arrays of {np.shape(data.retain['image'])[1:]}."
        )
    features = metrics.inception_embedder(foreign.read_arrays(weights))
    low, high = (float(f(data.retain["image"])) for f in (np.min, np.max))

    def embed(images):
        unit = (np.asarray(images).reshape(-1, *shape) - low) / max(high - low, 1e-9)
        pictures = np.broadcast_to(2.0 * unit - 1.0, (*unit.shape[:3], 3))
        return features(pictures.astype(np.float32))

    return embed
