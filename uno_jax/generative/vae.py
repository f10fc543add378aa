"""A variational autoencoder as two functions."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from uno_jax.objectives.families import Family, bernoulli, gaussian

LIKELIHOODS = {"bernoulli": bernoulli, "gaussian": gaussian}


@dataclasses.dataclass(frozen=True)
class VAE:
    r"""A variational autoencoder, without its parameters.

    The latents have the prior N(0, I). With :math:`q = N(\mu, \operatorname{diag} e^{v})` from
    the encoder, the training loss is the negative evidence lower bound

    .. math:: \frac1N \sum_n D(x_n \,\|\, \text{decode}(z_n)) + \text{KL}(q(z | x_n) \,\|\,
      N(0, I)), \quad z_n \sim q(z | x_n)

    up to a constant of the data, where :math:`D` is the divergence of the likelihood.

    Attributes:
      encode: `encode(params, x) -> (mean, log_variance)`, (N, K) float each.
      decode: `decode(params, z) -> outputs`, from (N, K) latents to what the likelihood
        takes: logits for `"bernoulli"`, means for `"gaussian"`; of the shape of `x`.
      likelihood: `"bernoulli"`, for x in [0, 1]; `"gaussian"`, of standard deviation 1, for
        any x; or a `Family`, such as `uno.gaussian(0.3)`.
    """

    encode: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]
    decode: Callable[[Any, jax.Array], jax.Array]
    likelihood: str | Family = "bernoulli"
