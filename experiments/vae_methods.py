"""Every method on a VAE: its step, its losses, its batches."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import uno_jax as uno
from uno_jax import data, models

MOMENT_BATCHES = 50


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a method is run; the defaults are the published ones.

    Attributes:
      norm: "batch": batch norm in training mode, running statistics move with both
        passes; "running": frozen.
      warm: whether Adam starts with the second moment of 50 retain gradients.
      hat: weight of the "hat" term, 0 for none.
      learning_rate: of Adam.
      weight: w of UNO.
      pull: λ of Selective Amnesia.
      batch_size: examples per batch, of each kind.
      anchor_weight: λ of the redirect.
    """

    norm: str = "batch"
    warm: bool = False
    hat: float = 0.0
    learning_rate: float = 1e-3
    weight: float = 1e3
    pull: float = 100.0
    batch_size: int = 128
    anchor_weight: float = 0.8


class Job(NamedTuple):
    """A method ready to run.

    Attributes:
      step: not jitted.
      start: `start(key) -> TrainState`, the original model with a fresh optimizer.
      streams: `streams(seed)`, the retain and the forget batches.
    """

    step: Callable
    start: Callable[[jax.Array], uno.TrainState]
    streams: Callable[[int], tuple[Iterable, Iterable]]


class Model(NamedTuple):
    """The model to unlearn and the data on both sides.

    Attributes:
      vae: the module.
      original: its state.
      split: what to retain and what to forget.
      batches: `batches(indices, batch_size=..., seed=...)`, endless batches of examples.
      redirect: `redirect(anchor_weight)`, the retain and the forget term of
        `uno.make_matching_step` and `streams(seed)` of their batches.
    """

    vae: nn.Module
    original: uno.TrainState
    split: data.Split
    batches: Callable
    redirect: Callable


def second_moment(model: Model, norm: str, batch_size: int = 128) -> Any:
    """Mean square of 50 retain gradients of the training loss at the original."""
    return uno.training.second_moment(
        models.make_vae_loss(model.vae, norm=norm),
        model.original.params,
        model.batches(model.split.retain, batch_size=batch_size, seed=987),
        jax.random.key(987),
        count=MOMENT_BATCHES,
        model_state=model.original.model_state,
        has_model_state=True,
    )


def prepare(
    method: uno.methods.Method,
    protocol: Protocol,
    model: Model,
    classify: Callable | None = None,
    forgotten: int | None = None,
    axis_name: str | None = None,
) -> Job:
    """Makes a method ready to run from the original model.

    Args:
      method: a row of the table.
      protocol: how to run it; the hat and the warm Adam do not concern a row that
        `matches`.
      model: the model and its data.
      classify: from images to logits; for the hat.
      forgotten: the forgotten class; for the hat.
      axis_name: a mapped axis, see `uno.make_unlearning_step`.

    Returns:
      A `Job`.

    Raises:
      ValueError: if the hat is asked for without a classifier, or the method needs labels.
    """
    if "labels" in method.needs:
        raise ValueError(f"{method.name}: expected a conditional model, got a VAE without labels.")
    vae, original, split, batches, make_redirect = model
    if method.matches:
        # It asks no classifier and has no Adam in it.
        protocol = dataclasses.replace(protocol, hat=0.0, warm=False)
    moment = None
    if protocol.warm or "second_moment" in method.needs:
        moment = second_moment(model, protocol.norm, protocol.batch_size)
    added = ()
    if protocol.hat:
        if classify is None:
            raise ValueError("hat: expected a classifier to guide it, got None.")
        sample = _sampler(vae, protocol)
        added = (uno.add_loss(uno.losses.hat_loss(classify, sample, forgotten), protocol.hat),)
    tx = method.build(
        optax.adam(protocol.learning_rate),
        weight=protocol.weight,
        second_moment=moment,
        pull=protocol.pull,
        added=added,
    )

    def start(key):
        state = uno.create_state(original.params, tx, key, model_state=original.model_state)
        if protocol.warm:
            state = state.replace(opt_state=uno.training.warm_adam(state.opt_state, moment))
        return state

    if method.matches:
        retain_term, forget_term, streams = make_redirect(protocol.anchor_weight)
        step = uno.make_matching_step(retain_term, forget_term, tx, axis_name=axis_name)
        return Job(step, start, streams)
    loss_fn = models.make_vae_loss(vae.clone(axis_name=axis_name), norm=protocol.norm)
    surrogate = "surrogate" in method.needs
    step = uno.make_unlearning_step(
        loss_fn,
        tx,
        forget_loss_fn=_noise_loss(vae, original) if surrogate else None,
        has_model_state=True,
        descend=method.descend,
        axis_name=axis_name,
        reduction="sum",
    )

    def streams(seed):
        retain, forget = (
            batches(side, batch_size=protocol.batch_size, seed=seed + offset)
            for offset, side in enumerate(split)
        )
        return (_replay(vae, original, retain, seed) if surrogate else retain), forget

    return Job(step, start, streams)


def _sampler(vae, protocol):
    def sample(params, model_state, key):
        latents = jax.random.normal(key, (protocol.batch_size, vae.latents))
        variables = {"params": params, "batch_stats": model_state}
        if protocol.norm == "running":
            return vae.picture(vae.apply(variables, latents, method="decode"))
        decoded, _ = vae.apply(
            variables, latents, method="decode", train=True, mutable=["batch_stats"]
        )
        return vae.picture(decoded)

    return sample


def _noise_loss(vae, original):
    """Selective Amnesia's surrogate: noise is drawn where forgotten images are encoded."""
    encoder = {"params": original.params, "batch_stats": original.model_state}

    def loss_fn(params, model_state, batch, key):
        noise_key, target_key = jax.random.split(key)
        mean, log_variance = vae.apply(encoder, batch["image"], method="encode")
        noise = jax.random.normal(noise_key, mean.shape)
        latents = mean + jnp.exp(0.5 * log_variance) * noise
        variables = {"params": params, "batch_stats": model_state}
        decoded = vae.apply(variables, latents, method="decode")
        low, high = vae.pixel_range
        target = jax.random.uniform(target_key, decoded.shape, minval=low, maxval=high)
        return jnp.sum(vae.error(decoded, target)), model_state

    return loss_fn


def _replay(vae, original, batches, seed):
    """Selective Amnesia's replay: the original's own pictures of retained latents."""
    variables = {"params": original.params, "batch_stats": original.model_state}

    @jax.jit
    def redraw(images, key):
        mean, log_variance = vae.apply(variables, images, method="encode")
        latents = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
        return models.decode(vae, original.params, original.model_state, latents)

    for number, batch in enumerate(batches):
        key = jax.random.fold_in(jax.random.key(seed), number)
        yield {**batch, "image": redraw(batch["image"], key)}
