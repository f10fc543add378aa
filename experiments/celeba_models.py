"""The models of the CelebA experiment: a VAE, three classifiers, the yardstick."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import uno_jax as uno
from experiments import common, devices, resumable, training
from uno_jax import data, models


class Classifier(NamedTuple):
    """A trained classifier of attributes.

    Attributes:
      logits: jitted, from (N, side, side, 3) images in [-1, 1] to (N, 40).
      embed: jitted, from the same to (N, D) features.
    """

    logits: Callable
    embed: Callable


def vae(options) -> models.ConvVAE:
    """The VAE of the preset."""
    return models.ConvVAE(
        channels=options.channels,
        latents=options.latents,
        side=options.side,
        dtype=jnp.dtype(options.dtype),
    )


def architectures() -> dict[str, nn.Module]:
    """The classifiers: two judges of different architecture, and the guide."""
    return {
        "judge": models.AttributeCNN(),
        "judge2": models.AttributeMixer(),
        "guide": models.AttributeCNN(channels=(16, 32, 64, 128), penultimate=64),
    }


def classifier(options, folder: common.RunFolder, faces: data.Faces, name: str) -> Classifier:
    """Trains one of `architectures`, or takes what the folder holds."""
    model = architectures()[name]
    number = list(architectures()).index(name)
    params = training.fit(
        folder,
        name,
        model,
        models.make_attribute_loss(model, shift=4),
        devices.per_process(data.face_batches)(
            faces, batch_size=128, seed=options.seed + number, flip=True
        ),
        jnp.zeros((1, options.side, options.side, 3)),
        steps=options.judge_steps,
        learning_rate=1e-3,
        key=jax.random.fold_in(jax.random.key(options.seed), 1 + number),
        save_every=options.train_save_every,
        devices=devices.choose(options.mesh, options.backend),
    )
    return Classifier(
        jax.jit(lambda images: model.apply({"params": params}, images)),
        jax.jit(lambda images: model.apply({"params": params}, images, method="embed")),
    )


def trained_vae(
    options, folder: common.RunFolder, name: str, faces: data.Faces, indices: np.ndarray | None
) -> uno.TrainState:
    """Trains the VAE for the epochs of the preset, or takes what the folder holds.

    The learning rate falls to zero as a cosine if the preset says so.
    """
    count = len(faces.images) if indices is None else len(indices)
    steps = training_steps(options, count)
    rate: Any = options.learning_rate
    if options.decay:
        rate = optax.cosine_decay_schedule(rate, steps)
    shape = (options.side, options.side, 3)
    where = devices.choose(options.mesh, options.backend)
    step, state = training.fresh_vae(
        vae(options), options.seed, rate, shape, axis_name=where.axis_name
    )
    batches = devices.per_process(data.face_batches)(
        faces, indices, batch_size=options.train_batch, seed=options.seed, flip=True
    )
    return resumable.train_or_restore(
        folder,
        name,
        step,
        state,
        batches,
        steps=steps,
        save_every=options.train_save_every,
        devices=where,
    )


def training_steps(options, count: int) -> int:
    """Steps of `options.epochs` epochs over a number of faces."""
    return max(1, round(options.epochs * count / options.train_batch))
