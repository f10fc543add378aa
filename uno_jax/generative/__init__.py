"""Generative models as functions: families, and the way from modules of other libraries.

A family says how a network is used and holds no parameters. A container takes a module of Flax
or Equinox apart into parameters and functions of them, and puts it together again.
"""

from uno_jax.generative.bound import Bound
from uno_jax.generative.equinox import from_equinox
from uno_jax.generative.linen import from_linen
from uno_jax.generative.nnx import from_nnx
from uno_jax.generative.vae import VAE

__all__ = ["VAE", "Bound", "from_equinox", "from_linen", "from_nnx"]
