"""Our own models as the audit takes them."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import uno_jax as uno
from uno_jax import diffusion, models
from uno_jax.audit.case import Model, Trainer
from uno_jax.audit.relearning import adam_trainer


def vae(model: nn.Module, *, learning_rate: float = 1e-3) -> Model:
    """A VAE of `uno_jax.models`, its parameters `{"params": ..., "batch_stats": ...}`.

    Args:
      model: the module.
      learning_rate: of the cold Adam of relearning.

    Returns:
      A `Model` with an encoder, whose loss is the negative ELBO in nats, and which goes on
      training in both modes of batch norm.
    """

    def sample(params, key, n):
        latents = jax.random.normal(key, (n, model.latents))
        return models.decode(model, params["params"], params["batch_stats"], latents)

    def loss_fn(params, batch, key):
        state = params["params"], params["batch_stats"]
        return models.negative_elbo(model, *state, batch["image"], key)

    def encode(params, batch):
        return model.apply(params, batch["image"], method="encode")

    titles = {"batch": "batch norm in training mode", "running": "batch norm frozen"}
    trainers = {
        title: stateful_trainer(models.make_vae_loss(model, norm=norm), learning_rate)
        for norm, title in titles.items()
    }
    return Model(sample, loss_fn, encode, trainers)


def stateful_trainer(loss_fn: Callable, learning_rate: float = 1e-3) -> Trainer:
    """A cold Adam on a loss that carries batch statistics.

    Args:
      loss_fn: `loss_fn(params, batch_stats, batch, key) -> (loss, batch_stats)`.
      learning_rate: of Adam.

    Returns:
      A `Trainer` of parameters `{"params": ..., "batch_stats": ...}`.
    """
    tx = optax.adam(learning_rate)
    return Trainer(
        start=lambda tree, key: uno.create_state(
            tree["params"], tx, key, model_state=tree["batch_stats"]
        ),
        step=uno.make_training_step(loss_fn, tx, has_model_state=True),
        params=lambda state: {"params": state.params, "batch_stats": state.model_state},
    )


def variables(state: uno.TrainState) -> dict[str, Any]:
    """The parameters of a VAE's train state, as `vae` takes them."""
    return {"params": state.params, "batch_stats": state.model_state}


def denoiser(
    process: diffusion.Diffusion,
    shape: tuple[int, ...],
    *,
    labels: Callable[[jax.Array, int], jax.Array] | None = None,
    learning_rate: float = 1e-4,
    **sampling: Any,
) -> Model:
    """A diffusion model.

    Args:
      process: the network with its schedule.
      shape: of an image.
      labels: `labels(key, n) -> (n,)`, those that are drawn; by default each with equal
        chance.
      learning_rate: of the cold Adam of relearning.
      **sampling: of `diffusion.sample`: sampler, steps, guidance.

    Returns:
      A `Model` whose loss is the training loss of each example, of its label.

    Raises:
      ValueError: if neither `labels` nor the process says what labels there are.
    """
    if labels is None:
        if process.null_label is None:
            raise ValueError("labels: expected a function, or a process with a null label.")
        count = process.null_label

        def labels(key, n):
            return jax.random.randint(key, (n,), 0, count)

    def sample(params, key, n):
        label_key, key = jax.random.split(key)
        return diffusion.sample(process, params, key, labels(label_key, n), shape, **sampling)

    loss = diffusion.make_diffusion_loss(process, label_dropout=0.0)

    def loss_fn(params, batch, key):
        def one(image, label, example_key):
            example = {"image": image[None], "label": label[None]}
            return loss(params, example, example_key)

        keys = jax.random.split(key, len(batch["image"]))
        return jax.vmap(one)(batch["image"], jnp.asarray(batch["label"]), keys)

    return Model(sample, loss_fn, None, {"Adam": adam_trainer(loss_fn, learning_rate)})
