"""Flax Linen models and the losses that train them."""

from uno_jax._extras import require

require("flax", "experiments")

from uno_jax.models.classifiers import (  # noqa: E402
    DigitCNN,
    DigitDeepMLP,
    DigitMLP,
    make_classifier_loss,
)
from uno_jax.models.elbo import bernoulli_log_likelihood, gaussian_kl  # noqa: E402
from uno_jax.models.mnist_vae import (  # noqa: E402
    MnistVAE,
    VAEOutput,
    decode,
    elbo_terms,
    make_vae_loss,
    negative_elbo,
)

__all__ = [
    "DigitCNN",
    "DigitDeepMLP",
    "DigitMLP",
    "MnistVAE",
    "VAEOutput",
    "bernoulli_log_likelihood",
    "decode",
    "elbo_terms",
    "gaussian_kl",
    "make_classifier_loss",
    "make_vae_loss",
    "negative_elbo",
]
