"""Numbers that describe a model, with intervals."""

from uno_jax._extras import require

require("scipy", "experiments")

from uno_jax.metrics.coverage import Coverage, coverage, covered  # noqa: E402
from uno_jax.metrics.frechet import frechet_distance  # noqa: E402
from uno_jax.metrics.inception import (  # noqa: E402
    inception_embedder,
    inception_features,
    inception_shapes,
)
from uno_jax.metrics.judges import accuracy, forgotten_fraction, predict  # noqa: E402
from uno_jax.metrics.membership import Attack, attack  # noqa: E402
from uno_jax.metrics.proportions import Proportion, proportion  # noqa: E402

__all__ = [
    "Attack",
    "Coverage",
    "Proportion",
    "accuracy",
    "attack",
    "coverage",
    "covered",
    "forgotten_fraction",
    "frechet_distance",
    "inception_embedder",
    "inception_features",
    "inception_shapes",
    "predict",
    "proportion",
]
