"""The redirect for a VAE of faces: what a half of its latent space shall draw."""

from functools import partial

import jax
import numpy as np

import uno_jax as uno
from experiments.devices import per_process
from experiments.vae_methods import Model
from uno_jax import data, models
from uno_jax.redirect import latent_shift, shifted_latents

DEPTH = 2  # of the decoder's transposed convolutions, those that move
SCALE = 0.3  # standard deviation of an activation behind them
BATCH = 1024  # latents of each side; half of them for the line search


def face_terms(vae: models.ConvVAE, original: uno.TrainState, anchor_weight: float):
    """Returns the anchor and the redirect term of a decoder.

    Both ask that `batch["latents"]` give the activations that `batch["shifted"]` gave,
    behind the decoder's first two transposed convolutions, batch norm frozen. Only what
    lies before takes part: what the rest of the decoder draws of given activations is as
    it was, and a Gauss-Newton product does not pass through its large layers.

    Args:
      vae: the VAE.
      original: its state before unlearning.
      anchor_weight: λ, the weight of the anchor.

    Returns:
      (retain term, forget term) for `uno.make_matching_step`.
    """

    def features(params, latents):
        variables = {"params": params, "batch_stats": original.model_state}
        return vae.apply(variables, latents, DEPTH, method="features")

    def outputs_fn(params, batch, key):
        del key
        return features(params, batch["latents"])

    def target_fn(batch, key):
        del key
        return features(original.params, batch["shifted"])

    family = uno.losses.gaussian(SCALE)
    return (
        uno.losses.match(outputs_fn, target_fn, family, weight=anchor_weight),
        uno.losses.match(outputs_fn, target_fn, family),
    )


def encode_faces(vae: models.ConvVAE, original: uno.TrainState, faces: data.Faces):
    """Posterior means and log variances of all faces, (M, latents) each."""
    variables = {"params": original.params, "batch_stats": original.model_state}
    encode = jax.jit(lambda x: vae.apply(variables, x, method="encode"))
    parts = [
        encode(data.to_floats(faces.images[start : start + 512]))
        for start in range(0, len(faces.images), 512)
    ]
    return tuple(np.concatenate(side) for side in zip(*parts, strict=True))


def face_model(
    vae: models.ConvVAE,
    original: uno.TrainState,
    faces: data.Faces,
    split: data.Split,
    share: float = 0.1,
) -> Model:
    """The model to unlearn, with the data on both sides and its redirect.

    Args:
      vae: the VAE.
      original: its state before unlearning.
      faces: training examples.
      split: what to retain and what to forget.
      share: largest share of the forgotten that the redirect leaves anywhere, see
        `uno_jax.redirect.latent_shift`.

    Returns:
      What `vae_methods.prepare` makes ready to run.
    """
    forget = np.isin(np.arange(len(faces.images)), split.forget)

    def redirect(anchor_weight):
        posterior = encode_faces(vae, original, faces)
        shift = latent_shift(*posterior, forget, share=share)

        def streams(seed):
            sides = shifted_latents(shift, *posterior, forget, seed=seed)
            return tuple(
                per_process(data.array_batches)(side, batch_size=BATCH, seed=seed + offset)
                for offset, side in enumerate(sides)
            )

        return *face_terms(vae, original, anchor_weight), streams

    return Model(vae, original, split, partial(per_process(data.face_batches), faces), redirect)
