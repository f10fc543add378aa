"""The redirect for a VAE: what a region of its latent space shall draw."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import uno_jax as uno
from experiments.devices import per_process
from experiments.vae_methods import Model
from uno_jax import data, models
from uno_jax.redirect import latent_redirect

OUTPUT_LAYER = ("decoder", "logits")
RETAIN_SIZE, FORGET_SIZE = 2048, 1024  # half of each for the line search


def vae_terms(model: models.MnistVAE, original: uno.TrainState, anchor_weight: float):
    """Returns the anchor and the redirect term of a decoder.

    Both ask for the pictures `batch["targets"]` when decoding `batch["latents"]`, batch
    norm frozen. Only the decoder's output layer takes part: the logits are linear in
    it, so that the objective is convex and a Gauss-Newton step a Newton step. The
    damping keeps where they are the parameters that nothing depends on.

    Args:
      model: the VAE.
      original: its state before unlearning.
      anchor_weight: λ, the weight of the anchor.

    Returns:
      (retain term, forget term) for `uno.make_matching_step`.
    """

    def output_layer_alone(path, leaf):
        names = tuple(key.key for key in path)
        return leaf if names[: len(OUTPUT_LAYER)] == OUTPUT_LAYER else jax.lax.stop_gradient(leaf)

    def outputs_fn(params, batch, key):
        del key
        params = jax.tree_util.tree_map_with_path(output_layer_alone, params)
        variables = {"params": params, "batch_stats": original.model_state}
        return model.apply(variables, batch["latents"], method="decode")

    def target_fn(batch, key):
        del key
        return jax.scipy.special.logit(jnp.clip(batch["targets"], 1e-6, 1 - 1e-6))

    return (
        uno.losses.match(outputs_fn, target_fn, uno.losses.bernoulli(), weight=anchor_weight),
        uno.losses.match(outputs_fn, target_fn, uno.losses.bernoulli()),
    )


def vae_streams(
    model: models.MnistVAE,
    original: uno.TrainState,
    images: np.ndarray,
    forget: np.ndarray,
    *,
    retain_size: int,
    forget_size: int,
) -> Callable:
    """Makes streams of the latents of both sides with their targets.

    The images are encoded once, for any number of seeds.

    Args:
      model: the VAE.
      original: its state before unlearning.
      images: (M, 784) float in [0, 1], all training images.
      forget: (M,) bool, true for what to forget.
      retain_size: latents per retain batch; half of them for the line search.
      forget_size: latents per forget batch; half of them for the line search.

    Returns:
      `streams(seed)`, the retain and the forget iterator; the seed is that of the
      sampling and of the order.
    """
    variables = {"params": original.params, "batch_stats": original.model_state}
    encode = jax.jit(lambda x: model.apply(variables, x, method="encode"))
    decode = jax.jit(lambda z: models.decode(model, original.params, original.model_state, z))
    parts = [encode(images[start : start + 5000]) for start in range(0, len(images), 5000)]
    mean, log_variance = (np.concatenate(side) for side in zip(*parts, strict=True))

    batches = per_process(data.array_batches)

    def streams(seed):
        redirect = latent_redirect(mean, log_variance, images, forget, decode, seed=seed)
        return (
            batches(redirect.retain, batch_size=retain_size, seed=seed),
            batches(redirect.forget, batch_size=forget_size, seed=seed + 1),
        )

    return streams


def digits(
    model: models.MnistVAE,
    original: uno.TrainState,
    train: data.Source,
    split: data.Split,
    images: np.ndarray,
) -> Model:
    """The model to unlearn, with the data on both sides and its redirect.

    Args:
      model: the VAE.
      original: its state before unlearning.
      train: training examples.
      split: what to retain and what to forget.
      images: all training images, (M, 784) float32 in [0, 1].

    Returns:
      What `vae_methods.prepare` makes ready to run.
    """
    forget = np.isin(np.arange(len(images)), split.forget)

    def redirect(anchor_weight):
        terms = vae_terms(model, original, anchor_weight)
        sizes = {"retain_size": RETAIN_SIZE, "forget_size": FORGET_SIZE}
        return *terms, vae_streams(model, original, images, forget, **sizes)

    return Model(model, original, split, partial(per_process(data.batches), train), redirect)
