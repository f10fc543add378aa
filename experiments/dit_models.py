"""The conditional diffusion models of the experiment, and their training."""

from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax

import uno_jax as uno
from experiments import common, resumable
from experiments.devices import ONE, Devices, per_process
from uno_jax import data, diffusion, models

SHAPE = (28, 28, 1)
RANGE = (-1.0, 1.0)
LABEL_DROPOUT = 0.1
AVERAGE = 0.999
WARMUP = 250


def network(name: str) -> nn.Module:
    """The small network by name, `"dit"` or `"unet"`, of ten classes.

    Raises:
      ValueError: for another name.
    """
    if name == "dit":
        return models.DiT(patch=4, depth=4, width=128, heads=4, classes=10)
    if name == "unet":
        return models.UNet(
            patch=2, width=32, multipliers=(1, 2), blocks=1, attention=(1,), classes=10
        )
    raise ValueError(f"model: expected 'dit' or 'unet', got {name!r}.")


def process(network: nn.Module) -> diffusion.Diffusion:
    """The diffusion around a network: v-prediction in continuous time."""
    return diffusion.Diffusion(
        lambda params, *arrays: network.apply({"params": params}, *arrays),
        diffusion.continuous_cosine(),
        prediction="v",
        null_label=network.null_label,
    )


def latent_process(network: nn.Module) -> diffusion.Diffusion:
    """The published diffusion around a DiT on latents: 1,000 steps, learned variance."""
    return diffusion.Diffusion(
        lambda params, *arrays: network.apply({"params": params}, *arrays),
        diffusion.linear(1000),
        learned_variance=True,
        null_label=network.null_label,
    )


def pictures(source: data.Source) -> np.ndarray:
    """All images of a source, (N, 28, 28, 1) float32 in [-1, 1]."""
    return source.images.astype(np.float32) / np.float32(127.5) - 1


def to_unit(images: jax.Array) -> jax.Array:
    """From (N, 28, 28, 1) in about [-1, 1] to the (N, 784) in [0, 1] that classifiers see."""
    return jnp.clip(0.5 * (images.reshape(len(images), -1) + 1), 0, 1)


def batches(images, labels, indices, *, batch_size: int, seed: int) -> grain.DatasetIterator:
    """Endless batches of `image` and `label`."""
    arrays = {"image": images[indices], "label": labels[indices]}
    return per_process(data.array_batches)(arrays, batch_size=batch_size, seed=seed)


def train(
    folder: common.RunFolder,
    name: str,
    network: nn.Module,
    stream: Iterable,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    devices: Devices = ONE,
) -> Any:
    """Trains a network, or takes what the folder already holds.

    Args:
      folder: where its checkpoint lies.
      name: of the checkpoint.
      network: the module.
      stream: its batches, from their beginning.
      steps: of Adam, the learning rate rising linearly and then falling as a cosine.
      learning_rate: its highest.
      seed: of the parameters and of the noise.
      devices: how the step is run.

    Returns:
      The moving average of its parameters.
    """
    loss_fn = diffusion.make_diffusion_loss(process(network), label_dropout=LABEL_DROPOUT)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, min(WARMUP, steps // 4), steps
    )
    tx = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(schedule), uno.transforms.average_params(AVERAGE)
    )
    init_key, key = jax.random.split(jax.random.key(seed))
    initialise = jax.jit(network.init)
    variables = initialise(init_key, jnp.zeros((2, *SHAPE)), jnp.zeros(2), jnp.zeros(2, jnp.int32))
    state = resumable.train_or_restore(
        folder,
        name,
        uno.make_training_step(loss_fn, tx, axis_name=devices.axis_name),
        uno.create_state(variables["params"], tx, key),
        stream,
        steps=steps,
        save_every=500,
        devices=devices,
    )
    return optax.tree.get(state.opt_state, "average")


def make_sampler(
    network: nn.Module, *, guidance: float, steps: int, sampler: str = "dpm"
) -> Callable:
    """Returns `draw(params, key, labels) -> (N, 28, 28, 1)`, jitted."""
    around = process(network)

    def draw(params, key, labels):
        return diffusion.sample(
            around,
            params,
            key,
            labels,
            SHAPE,
            sampler=sampler,
            steps=steps,
            guidance=guidance,
            clip=RANGE,
        )

    return jax.jit(draw)
