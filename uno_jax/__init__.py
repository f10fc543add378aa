"""uno_jax: remove data from a trained generative model, fast, in JAX.

`forget` takes a model of one's own, its parameters and examples on both sides. The methods are
Optax transformations, with the step and the loop around them. All of this needs jax and optax
alone; what is not named here is in a submodule, imported by its own name, for example
`from uno_jax import data`, which says the extra that it needs.
"""

from uno_jax import generative, losses, methods, requests, training, transforms
from uno_jax._version import __version__
from uno_jax.case import Case
from uno_jax.diffusion import Diffusion
from uno_jax.forgetting import Forgotten, forget
from uno_jax.generative import VAE, from_equinox, from_linen, from_nnx
from uno_jax.training import (
    TrainState,
    create_state,
    jit_turns,
    make_matching_step,
    make_training_step,
    make_unlearning_step,
    train,
    trainable,
    unlearn,
)
from uno_jax.transforms import (
    add_loss,
    alternate,
    ascend,
    orthogonalize,
    orthogonalize_against,
    surgery,
)

__all__ = [
    "VAE",
    "Case",
    "Diffusion",
    "Forgotten",
    "TrainState",
    "__version__",
    "add_loss",
    "alternate",
    "ascend",
    "create_state",
    "forget",
    "from_equinox",
    "from_linen",
    "from_nnx",
    "generative",
    "jit_turns",
    "losses",
    "make_matching_step",
    "make_training_step",
    "make_unlearning_step",
    "methods",
    "orthogonalize",
    "orthogonalize_against",
    "requests",
    "surgery",
    "train",
    "trainable",
    "training",
    "transforms",
    "unlearn",
]
