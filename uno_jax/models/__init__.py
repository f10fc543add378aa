"""Flax Linen models and the losses that train them."""

from uno_jax._extras import require

require("flax", "experiments")

from uno_jax.models.attributes import (  # noqa: E402
    AttributeCNN,
    AttributeMixer,
    make_attribute_loss,
)
from uno_jax.models.classifiers import (  # noqa: E402
    DigitCNN,
    DigitDeepMLP,
    DigitMLP,
    make_classifier_loss,
)
from uno_jax.models.conv_vae import ConvVAE  # noqa: E402
from uno_jax.models.dit import (  # noqa: E402
    DIT_SIZES,
    DiT,
    DiTBlock,
    dit,
    parameter_count,
    stack_blocks,
    unstack_blocks,
)
from uno_jax.models.elbo import (  # noqa: E402
    bernoulli_log_likelihood,
    gaussian_kl,
    squared_error,
)
from uno_jax.models.layers import ConvDown, ConvUp, conv_down, conv_up  # noqa: E402
from uno_jax.models.mnist_vae import MnistVAE  # noqa: E402
from uno_jax.models.unet import UNet  # noqa: E402
from uno_jax.models.vae import (  # noqa: E402
    VAEOutput,
    decode,
    elbo_terms,
    make_vae_loss,
    negative_elbo,
)

__all__ = [
    "DIT_SIZES",
    "AttributeCNN",
    "AttributeMixer",
    "ConvDown",
    "ConvUp",
    "ConvVAE",
    "DiT",
    "DiTBlock",
    "DigitCNN",
    "DigitDeepMLP",
    "DigitMLP",
    "MnistVAE",
    "UNet",
    "VAEOutput",
    "bernoulli_log_likelihood",
    "conv_down",
    "conv_up",
    "decode",
    "dit",
    "elbo_terms",
    "gaussian_kl",
    "make_attribute_loss",
    "make_classifier_loss",
    "make_vae_loss",
    "negative_elbo",
    "parameter_count",
    "squared_error",
    "stack_blocks",
    "unstack_blocks",
]
