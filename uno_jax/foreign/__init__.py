"""Other people's weights, read without ever unpickling."""

from uno_jax._extras import require

require("numpy", "experiments")

from uno_jax.foreign.dit_names import (  # noqa: E402
    dit_original,
    dit_variables,
    original_from_diffusers,
)
from uno_jax.foreign.torch_layouts import Entry, from_torch, read_arrays, to_torch  # noqa: E402
from uno_jax.foreign.vae_names import DIGIT_MLP, MNIST_VAE, conv_vae  # noqa: E402

__all__ = [
    "DIGIT_MLP",
    "MNIST_VAE",
    "Entry",
    "conv_vae",
    "dit_original",
    "dit_variables",
    "from_torch",
    "original_from_diffusers",
    "read_arrays",
    "to_torch",
]
