"""Every method on a conditional diffusion model: its step, its losses, its batches."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import uno_jax as uno
from experiments import dit_models, dit_redirect
from experiments.devices import per_process
from uno_jax import data, diffusion

CONDITIONING = r"(^|/)(label|modulation)(/|$)"
"""Where labels come into our models: their table, and what it shifts and scales."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a method is run.

    Attributes:
      learning_rate: of Adam, traced or not.
      decay_steps: steps over which the learning rate rises for a tenth and falls to zero as
        a cosine; 0 for a constant one, as published.
      weight: w of UNO.
      hessian: how UNO takes its products.
      batch_size: examples per batch, of each kind.
      replay: samples of the original model beside them in each retain batch; 0, as
        published, for none.
      trainable: regular expression of the parameters that gradient methods train.
      exchange: whether the retain loss sends the forgotten label to the exchange class;
        without, retain descent is the bare control.
      labelled: whether the forget loss shows every image under its label, never without.
      erasing: η of ESD.
      retaining: whether ESD's loss is descended together with the retain loss, without the
        exchange; as published it is alone.
      erasing_steps: steps of the sampler that ESD takes its noisy images from.
      redirect: options of the redirect.
    """

    learning_rate: float = 1e-3
    decay_steps: int = 0
    weight: float = 1e-2
    hessian: str = "exact"
    batch_size: int = 64
    replay: int = 0
    trainable: str = ""
    exchange: bool = True
    labelled: bool = False
    erasing: float = 1.0
    retaining: bool = False
    erasing_steps: int = 10
    redirect: dit_redirect.Options = dataclasses.field(default_factory=dit_redirect.Options)


class Model(NamedTuple):
    """The model to unlearn and the data on both sides.

    Attributes:
      process: the diffusion around the network.
      original: its parameters.
      images: (N, ..., C) float32, all training images or latents.
      labels: (N,) int32.
      forgotten: the label to be forgotten.
      exchange: the label whose images shall come in its place.
      replayed: `image` and `label`, samples of the original for the retained labels, if
        the protocol replays any.
    """

    process: diffusion.Diffusion
    original: Any
    images: np.ndarray
    labels: np.ndarray
    forgotten: int
    exchange: int
    replayed: dict | None = None

    def rows(self, side: str) -> np.ndarray:
        """Indices of the images to `"retain"`, to `"forget"`, or to `"exchange"`."""
        if side == "retain":
            return np.flatnonzero(self.labels != self.forgotten)
        label = self.forgotten if side == "forget" else self.exchange
        return np.flatnonzero(self.labels == label)

    def stream(self, side: str, *, batch_size: int, seed: int, replay: int = 0) -> Iterator[dict]:
        """Endless batches of `image` and `label` of one side, with `replay` samples in each."""
        rows = self.rows(side)
        arrays = {"image": self.images[rows], "label": self.labels[rows]}
        stream = per_process(data.array_batches)
        batches = stream(arrays, batch_size=batch_size, seed=seed)
        if not replay:
            return batches
        replayed = stream(self.replayed, batch_size=replay, seed=seed)
        pairs = zip(batches, replayed, strict=False)
        return ({key: np.concatenate([a[key], b[key]]) for key in a} for a, b in pairs)


class Job(NamedTuple):
    """A method ready to run.

    Attributes:
      step: not jitted.
      start: `start(key) -> TrainState`: its parameters those that move, its model state
        the others; `whole` joins them.
      streams: `streams(seed)`, the retain and the forget batches.
    """

    step: Callable
    start: Callable[[jax.Array], uno.TrainState]
    streams: Callable[[int], tuple[Iterable, Iterable]]


def whole(state: uno.TrainState) -> Any:
    """All parameters of a job's state."""
    return uno.training.join(state.params, state.model_state)


def prepare(
    method: uno.methods.Method, protocol: Protocol, model: Model, axis_name: str | None = None
) -> Job:
    """Makes a method ready to run from the original model.

    The retain loss of all gradient methods is the training loss on retained images plus
    that on images of the exchange class under the forgotten label; the forget loss is the
    training loss on forgotten images, or that of ESD.

    Args:
      method: a row of the table.
      protocol: how to run it.
      model: the model and its data.
      axis_name: a mapped axis, see `uno.make_unlearning_step`.

    Returns:
      A `Job`.

    Raises:
      ValueError: if the method needs something that a diffusion model does not have.
    """
    missing = [need for need in ("surrogate", "second_moment") if need in method.needs]
    missing += ["terms to match"] if method.matches else []
    if missing:
        raise ValueError(f"{method.name}: expected a method without {missing} here.")
    if protocol.replay and model.replayed is None:
        raise ValueError(f"replay: expected samples of the model for {protocol.replay}, got none.")
    if "erasing" in method.needs and protocol.retaining:
        method = method._replace(
            direction=lambda setting: uno.transforms.add_forget(1.0), descend="retain"
        )
    tx = method.build(
        optax.adam(_schedule(protocol)), weight=protocol.weight, hessian=protocol.hessian
    )
    targets = "targets" in method.needs
    where = protocol.redirect.trainable if targets else protocol.trainable
    subset = uno.trainable(model.original, _moves(method.moves, where))
    retain_loss, forget_loss, other = _losses(method, protocol, model)
    step = uno.make_unlearning_step(
        uno.training.with_frozen(retain_loss),
        tx,
        forget_loss_fn=uno.training.with_frozen(forget_loss),
        has_model_state=True,
        model_state_from="none",
        descend=method.descend,
        axis_name=axis_name,
    )

    def start(key):
        return uno.create_state(subset.trainable, tx, key, model_state=subset.frozen)

    def streams(seed):
        size = protocol.batch_size
        retain = model.stream("retain", batch_size=size, seed=seed, replay=protocol.replay)
        others = model.stream(other[1], batch_size=size, seed=seed + 1)
        if targets:
            fraction = protocol.redirect.unlabelled if model.process.null_label is not None else 0
            return dit_redirect.streams(
                model, retain, others, unlabelled=round(fraction * size), seed=seed
            )
        forget = model.stream("forget", batch_size=size, seed=seed + 2)
        return _joined(retain, other[0], others), forget

    return Job(step, start, streams)


def _dropout(model):
    return 0.0 if model.process.null_label is None else dit_models.LABEL_DROPOUT


def _losses(method, protocol, model):
    """The retain loss, the forget loss, and what the retain batch holds beside its own."""
    process, other = model.process, ("exchange", "exchange")
    loss_fn = diffusion.make_diffusion_loss(process, label_dropout=_dropout(model))
    if "targets" in method.needs:
        return *dit_redirect.losses(process, protocol.redirect), other
    retain_loss, forget_loss = loss_fn, loss_fn
    if protocol.labelled:
        forget_loss = diffusion.make_diffusion_loss(process)
    if protocol.exchange and "erasing" not in method.needs:
        retain_loss = uno.losses.exchange_loss(loss_fn, model.forgotten)
    if "relabelling" in method.needs:
        other = ("relabel", "forget")
        retain_loss = _with_relabelling(loss_fn, process, model.forgotten, model.exchange)
    if "erasing" in method.needs:
        forget_loss = _erasing(process, model, protocol)
    return retain_loss, forget_loss, other


def _schedule(protocol: Protocol) -> optax.ScalarOrSchedule:
    rate, steps = protocol.learning_rate, protocol.decay_steps
    if not steps:
        return rate
    shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, max(1, steps // 10), steps + 1)
    return lambda count: rate * shape(count)


def _moves(kind: str, where: str) -> Callable:
    """The predicate of the parameters that move, of a row's `moves` and of the options."""

    def chosen(path, leaf):
        del leaf
        conditioning = bool(re.search(CONDITIONING, path))
        side = {"all": True, "conditioning": conditioning, "rest": not conditioning}[kind]
        return side and bool(re.search(where, path))

    return chosen


def _joined(batches, name, others):
    for batch, other in zip(batches, others, strict=False):
        yield {**batch, name: other}


def _with_relabelling(loss_fn, process, forgotten, exchange):
    def noisy_fn(batch, key):
        time_key, noise_key = jax.random.split(key)
        images = batch["image"]
        times = diffusion.draw_times(process.schedule, time_key, images.shape[0])
        noise = jax.random.normal(noise_key, images.shape)
        return diffusion.add_noise(process.schedule, images, times, noise), times

    relabelling = uno.losses.relabelling_loss(
        noisy_fn, diffusion.outputs(process), forgotten=forgotten, exchange=exchange
    )

    def with_relabelling(params, batch, key):
        keys = jax.random.split(key)
        retained = {name: value for name, value in batch.items() if name != "relabel"}
        return loss_fn(params, retained, keys[0]) + relabelling(params, batch["relabel"], keys[1])

    return with_relabelling


def _erasing(process, model, protocol):
    steps = protocol.erasing_steps

    def noisy_fn(params, batch, key):
        """What the model in training samples for the label, taken out in the midst."""
        sample_key, stop_key = jax.random.split(key)
        count, *shape = batch["image"].shape
        stop = jax.random.randint(stop_key, (count,), 0, steps)
        noisy = diffusion.sample(
            process,
            params,
            sample_key,
            jnp.full(count, model.forgotten),
            tuple(shape),
            sampler="ddim",
            steps=steps,
            stop=stop,
        )
        return noisy, diffusion.sampling_times(process.schedule, steps)[stop]

    return uno.losses.erasing_loss(
        noisy_fn,
        diffusion.outputs(process),
        model.original,
        forgotten=model.forgotten,
        null_label=process.null_label,
        guidance=protocol.erasing,
    )
