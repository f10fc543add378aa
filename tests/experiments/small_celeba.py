"""`python -m experiments.celeba` with classifiers that compile in no time, and a small redirect.

python -m tests.experiments.small_celeba [the same options]
"""

import runpy

import flax.linen as nn

from experiments import celeba_models, face_redirect
from uno_jax import models


def architectures() -> dict[str, nn.Module]:
    """In place of `celeba_models.architectures`."""
    return {
        "judge": models.AttributeCNN(channels=(8,), penultimate=8),
        "judge2": models.AttributeMixer(width=8, depth=1),
        "guide": models.AttributeCNN(channels=(16,), penultimate=8),
    }


if __name__ == "__main__":
    celeba_models.architectures = architectures
    face_redirect.BATCH = 64
    runpy.run_module("experiments.celeba", run_name="__main__")
