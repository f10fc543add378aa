"""The redirect for a VAE: what the forgotten region of its latent space shall draw."""

import jax
import numpy as np

import uno_jax as uno
from uno_jax import data, models


def vae_terms(model: models.MnistVAE, original: uno.TrainState, anchor_weight: float):
    """Returns the anchor and the redirect term of a decoder.

    Both ask for the original decoder's picture at `batch["targets"]` when decoding
    `batch["latents"]`, batch norm frozen. The encoder stays as it is: neither term
    depends on it, and damping keeps what nothing depends on.

    Args:
      model: the VAE.
      original: its state before unlearning.
      anchor_weight: λ, the weight of the anchor.

    Returns:
      (retain term, forget term) for `uno.make_matching_step`.
    """

    def decode(params, latents):
        variables = {"params": params, "batch_stats": original.model_state}
        return model.apply(variables, latents, method="decode")

    def term(weight):
        return uno.match(
            lambda params, batch, key: decode(params, batch["latents"]),
            lambda batch, key: decode(original.params, batch["targets"]),
            uno.bernoulli(),
            weight=weight,
        )

    return term(anchor_weight), term(1.0)


def vae_batches(
    model: models.MnistVAE,
    original: uno.TrainState,
    images: np.ndarray,
    forget: np.ndarray,
    *,
    seed: int,
    retain_size: int = 1024,
    forget_size: int = 512,
):
    """Streams the latents of both sides with their targets.

    Args:
      model: the VAE.
      original: its state before unlearning.
      images: (M, 784) float in [0, 1], all training images.
      forget: (M,) bool, true for what to forget.
      seed: of the sampling and of the order.
      retain_size: latents per retain batch; half of them for the line search.
      forget_size: latents per forget batch; half of them for the line search.

    Returns:
      The two iterators and the `data.LatentRedirect` behind them.
    """
    variables = {"params": original.params, "batch_stats": original.model_state}
    encode = jax.jit(lambda x: model.apply(variables, x, method="encode"))
    parts = [encode(images[start : start + 5000]) for start in range(0, len(images), 5000)]
    mean, log_variance = (np.concatenate(side) for side in zip(*parts, strict=True))
    redirect = data.latent_redirect(mean, log_variance, forget, seed=seed)
    streams = (
        data.array_batches(redirect.retain, batch_size=retain_size, seed=seed),
        data.array_batches(redirect.forget, batch_size=forget_size, seed=seed + 1),
    )
    return streams, redirect
