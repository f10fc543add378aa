"""Training from scratch: a classifier, and the start of a VAE."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import uno_jax as uno
from experiments import common
from uno_jax import data, models


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
) -> tuple[Callable, Any]:
    """Trains a digit classifier, or takes what the folder already holds.

    Args:
      folder: where its checkpoint lies.
      train: the examples.
      name: of the checkpoint.
      model: maps (N, 784) images to (N, 10) logits.
      steps: training steps, over which the learning rate falls to zero as a cosine.
      learning_rate: of Adam, at the beginning.
      key: of the initial parameters and of the shifts.
      seed: of the order of the batches.

    Returns:
      The jitted function from images to logits, and its parameters.
    """
    tx = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    params = model.init(key, jnp.zeros((1, 784)))["params"]
    state = common.train_or_restore(
        folder,
        name,
        uno.make_training_step(models.make_classifier_loss(model, shift=2), tx),
        uno.create_state(params, tx, key),
        data.batches(train, batch_size=128, seed=seed),
        steps=steps,
    )
    return jax.jit(lambda images: model.apply({"params": state.params}, images)), state.params


def fresh_vae(
    model: models.MnistVAE, seed: int, learning_rate: float
) -> tuple[Callable, uno.TrainState]:
    """The training step of a VAE, not jitted, and the state in which it starts."""
    init_key, key = jax.random.split(jax.random.key(seed))
    variables = model.init(init_key, jnp.zeros((2, 784)), jnp.zeros((2, 2)), train=True)
    tx = optax.adam(learning_rate)
    step = uno.make_training_step(models.make_vae_loss(model), tx, has_model_state=True)
    state = uno.create_state(variables["params"], tx, key, model_state=variables["batch_stats"])
    return step, state
