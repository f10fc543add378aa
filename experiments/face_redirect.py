"""The redirect for a VAE of faces: what a half of its latent space shall draw."""

from functools import partial

import jax
import numpy as np

import uno_jax as uno
from experiments.vae_methods import Model
from uno_jax import data, models

BATCH = 256  # latents of each side; half of them for the line search


def face_terms(vae: models.ConvVAE, original: uno.TrainState, anchor_weight: float):
    """Returns the anchor and the redirect term of a decoder.

    Both ask that `batch["latents"]` be drawn as the original draws
    `batch["shifted"]`, batch norm frozen, pictures with a variance of 1/2 a pixel as in
    the training loss. The decoder alone moves.

    Args:
      vae: the VAE.
      original: its state before unlearning.
      anchor_weight: λ, the weight of the anchor.

    Returns:
      (retain term, forget term) for `uno.make_matching_step`.
    """

    def draw(params, latents):
        variables = {"params": params, "batch_stats": original.model_state}
        return vae.apply(variables, latents, method="decode")

    def outputs_fn(params, batch, key):
        del key
        return draw(params, batch["latents"])

    def target_fn(batch, key):
        del key
        return draw(original.params, batch["shifted"])

    family = uno.gaussian(scale=0.5**0.5)
    return (
        uno.match(outputs_fn, target_fn, family, weight=anchor_weight),
        uno.match(outputs_fn, target_fn, family),
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
    vae: models.ConvVAE, original: uno.TrainState, faces: data.Faces, split: data.Split
) -> Model:
    """The model to unlearn, with the data on both sides and its redirect.

    Args:
      vae: the VAE.
      original: its state before unlearning.
      faces: training examples.
      split: what to retain and what to forget.

    Returns:
      What `vae_methods.prepare` makes ready to run.
    """
    forget = np.isin(np.arange(len(faces.images)), split.forget)

    def redirect(anchor_weight):
        posterior = encode_faces(vae, original, faces)
        shift = data.latent_shift(*posterior, forget)

        def streams(seed):
            sides = data.shifted_latents(shift, *posterior, forget, seed=seed)
            return tuple(
                data.array_batches(side, batch_size=BATCH, seed=seed + offset)
                for offset, side in enumerate(sides)
            )

        return *face_terms(vae, original, anchor_weight), streams

    return Model(vae, original, split, partial(data.face_batches, faces), redirect)
