"""What a model that never saw the forgotten data would say, one module for each family."""

from uno_jax.redirect.neighbours import LatentRedirect, latent_redirect
from uno_jax.redirect.shift import LatentShift, latent_shift, shifted_latents

__all__ = [
    "LatentRedirect",
    "LatentShift",
    "latent_redirect",
    "latent_shift",
    "shifted_latents",
]
