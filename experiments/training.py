"""Training from scratch: a classifier, and the start of a VAE."""

from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import uno_jax as uno
from experiments import common, resumable
from experiments.devices import ONE, Devices, per_process
from uno_jax import data, models


def fit(
    folder: common.RunFolder,
    name: str,
    model: nn.Module,
    loss_fn: Callable,
    batches: Iterable,
    example: jax.Array,
    *,
    steps: int,
    learning_rate: float,
    key: jax.Array,
    save_every: int = 1000,
    devices: Devices = ONE,
) -> Any:
    """Trains a classifier without model state, or takes what the folder already holds.

    Args:
      folder: where its checkpoint lies.
      name: of the checkpoint.
      model: maps images to logits.
      loss_fn: `loss_fn(params, batch, key) -> scalar`.
      batches: from their beginning.
      example: images of the right shape.
      steps: training steps, over which the learning rate falls to zero as a cosine.
      learning_rate: of Adam, at the beginning.
      key: of the initial parameters and of the augmentation.
      save_every: steps between two checkpoints.
      devices: how the step is run.

    Returns:
      Its parameters.
    """
    tx = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    state = resumable.train_or_restore(
        folder,
        name,
        uno.make_training_step(loss_fn, tx, axis_name=devices.axis_name),
        uno.create_state(jax.jit(model.init)(key, example)["params"], tx, key),
        batches,
        steps=steps,
        save_every=save_every,
        devices=devices,
    )
    return state.params


def classifier(
    folder: common.RunFolder,
    train: data.Source,
    name: str,
    model: nn.Module,
    *,
    steps: int,
    learning_rate: float,
    key: jax.Array,
    seed: int,
    devices: Devices = ONE,
) -> tuple[Callable, Any]:
    """Trains a digit classifier, or takes what the folder already holds.

    Args:
      folder: where its checkpoint lies.
      train: the examples.
      name: of the checkpoint.
      model: maps (N, 784) images to (N, 10) logits.
      steps: training steps.
      learning_rate: of Adam, at the beginning.
      key: of the initial parameters and of the shifts.
      seed: of the order of the batches.
      devices: how the step is run.

    Returns:
      The jitted function from images to logits, and its parameters.
    """
    params = fit(
        folder,
        name,
        model,
        models.make_classifier_loss(model, shift=2),
        per_process(data.batches)(train, batch_size=128, seed=seed),
        jnp.zeros((1, 784)),
        steps=steps,
        learning_rate=learning_rate,
        key=key,
        devices=devices,
    )
    return jax.jit(lambda images: model.apply({"params": params}, images)), params


def fresh_vae(
    model: nn.Module,
    seed: int,
    learning_rate: optax.ScalarOrSchedule,
    shape: tuple[int, ...] = (784,),
    axis_name: str | None = None,
) -> tuple[Callable, uno.TrainState]:
    """The training step of a VAE, not jitted, and the state in which it starts.

    Args:
      model: the VAE.
      seed: of its parameters and of the noise.
      learning_rate: of Adam, a number or a schedule.
      shape: of an image.
      axis_name: a mapped axis, see `make_training_step`.

    Returns:
      The step and the state.
    """
    init_key, key = jax.random.split(jax.random.key(seed))
    initialise = jax.jit(lambda *arrays: model.init(*arrays, train=True))
    variables = initialise(init_key, jnp.zeros((2, *shape)), jnp.zeros((2, model.latents)))
    tx = optax.adam(learning_rate)
    step = uno.make_training_step(
        models.make_vae_loss(model.clone(axis_name=axis_name)),
        tx,
        has_model_state=True,
        axis_name=axis_name,
        reduction="sum",
    )
    state = uno.create_state(variables["params"], tx, key, model_state=variables["batch_stats"])
    return step, state
