"""The gradient methods on a model that has a training loss."""

import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from uno_jax.methods.job import Job
from uno_jax.methods.row import Method
from uno_jax.methods.table import get_method
from uno_jax.training.examples import Examples, check_alike, read_examples
from uno_jax.training.state import create_state
from uno_jax.training.step import make_training_step, make_unlearning_step
from uno_jax.training.subset import join
from uno_jax.training.subset import trainable as choose

DESCENTS = (
    "surgery",
    "surgery-ascent",
    "surgery-descent",
    "ascent",
    "ascent-descent",
    "orthogonal-ascent",
    "salun",
    "retain-descent",
)
"""The methods of `descend`."""
PENALIZED = ("uno", "uno-s")
"""The methods of `descend_with_penalty`."""
CONTROL = "retain-descent"
"""The method that does not look at the forget batch, and does not pay for it."""
LOOKED_AT = 8
"""Examples on which a loss is tried before anything is compiled."""


def descend(
    name: str,
    model: Any,
    params: Any,
    retain: Any,
    forget: Any,
    *,
    trainable: str | None = None,
    learning_rate: float = 1e-3,
    batch_size: int = 128,
    steps: int = 100,
) -> Job:
    r"""A method that makes a direction of the gradients of the training loss on both sides.

    With :math:`g_r` and :math:`g_f` the gradients on a retain and a forget batch, the formula
    of each method is in `uno.methods.METHODS`. Adam follows it.

    Args:
      name: one of `DESCENTS`.
      model: anything with `loss_fn(params, batch, key) -> scalar`, the mean over a batch, such
        as a `VAE`; its `check(params, images)`, if it has one, is called.
      params: parameters of the trained model.
      retain: what to keep, as `uno.forget` takes it.
      forget: what to forget, likewise.
      trainable: regular expression of the paths of the parameters that move; all if `None`.
        Parameters that are no floating-point numbers never move.
      learning_rate: of Adam, the published one by default. Methods that ascend have no
        minimum to go to: they destroy the model if they make too many steps.
      batch_size: examples of each side in a step.
      steps: how many steps the job says it makes.

    Returns:
      A `Job`.

    Raises:
      ValueError: for data that cannot be read, options out of range, a model whose loss cannot
        be computed on the data.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np
      >>> from typing import NamedTuple
      >>> from uno_jax.methods.gradient import descend
      >>> class Mean(NamedTuple):
      ...     def loss_fn(self, params, batch, key):
      ...         return jnp.mean((params["mean"] - batch["image"]) ** 2)
      >>> retain, forget = np.ones((8, 2), np.float32), np.zeros((4, 2), np.float32)
      >>> job = descend("surgery", Mean(), {"mean": jnp.ones(2)}, retain, forget)
      >>> state = job.start(jax.random.key(0))
      >>> state, metrics = job.step(state, *map(next, job.streams(0)))
      >>> job.finish(state)["mean"].shape
      (2,)
    """
    return _on_losses(
        name, model, params, retain, forget, trainable, learning_rate, batch_size, steps
    )


def descend_with_penalty(
    name: str,
    model: Any,
    params: Any,
    retain: Any,
    forget: Any,
    *,
    trainable: str | None = None,
    learning_rate: float = 1e-3,
    batch_size: int = 128,
    weight: float = 8.0,
    max_ratio: float | None = 1.0,
    hessian: str = "exact",
    steps: int = 100,
) -> Job:
    r"""UNO, which drives the two gradients orthogonal, and UNO-S, which alternates with surgery.

    .. math:: g_r + w \nabla \cos^2(g_r, g_f)

    with the second term at most `max_ratio` times as long as the first.

    Args:
      name: `"uno"` or `"uno-s"`.
      model: as of `descend`.
      params: as of `descend`.
      retain: as of `descend`.
      forget: as of `descend`.
      trainable: as of `descend`.
      learning_rate: as of `descend`.
      batch_size: as of `descend`.
      weight: w, in units of the loss. As published it is 1000 where the loss is the sum over
        128 examples: 8 where it is their mean.
      max_ratio: bound of the penalty, `None` for none, as published; that destroys a model
        whose loss is a mean.
      hessian: `"exact"` or `"finite-difference"`, see `uno.orthogonalize`.
      steps: as of `descend`.

    Returns:
      A `Job`.

    Raises:
      ValueError: as `descend`.
    """
    setting = {"weight": weight, "max_ratio": max_ratio, "hessian": hessian}
    return _on_losses(
        name, model, params, retain, forget, trainable, learning_rate, batch_size, steps, **setting
    )


def _on_losses(
    name, model, params, retain, forget, trainable, learning_rate, batch_size, steps, **setting
) -> Job:
    check_options(learning_rate, batch_size, steps)
    row = get_method(name)
    retain, forget = read_sides(retain, forget)
    if hasattr(model, "check"):
        for side in (retain, forget):
            model.check(params, side.first(LOOKED_AT)["image"])
    check_loss(model.loss_fn, params, retain)

    def streams(seed):
        return retain.batches(batch_size, seed), forget.batches(batch_size, seed + 1)

    return make_job(
        row,
        params,
        (model.loss_fn, model.loss_fn),
        streams,
        trainable=trainable,
        learning_rate=learning_rate,
        steps=steps,
        cost=cost_of(row, batch_size),
        **setting,
    )


def make_job(
    row: Method,
    params: Any,
    losses: tuple[Callable, Callable],
    streams: Callable,
    *,
    trainable: str | Callable | None,
    learning_rate: optax.ScalarOrSchedule,
    steps: int,
    cost: str,
    with_original: bool = False,
    **setting: Any,
) -> Job:
    """A job from a row of the table, two losses and two streams.

    Parameters that do not move, and the original where the losses ask for it, travel in
    `TrainState.model_state`: closed over, they would be constants of the program.

    Args:
      row: of the table.
      params: parameters of the trained model.
      losses: on a retain and on a forget batch, `loss_fn(params, batch, key) -> scalar`; with
        `with_original`, `loss_fn(params, original, batch, key)`.
      streams: of the job.
      trainable: which parameters move, see `uno.trainable`; all if `None`.
      learning_rate: of Adam.
      steps: of the job.
      cost: of the job.
      with_original: whether the losses take the parameters of the original model.
      **setting: of `Method.build`: `weight`, `max_ratio`, `hessian`.

    Returns:
      A `Job`.

    Raises:
      ValueError: if no parameter is chosen to move.
    """
    tx = row.build(optax.adam(learning_rate), **setting)
    params = jax.tree.map(jnp.asarray, params)
    subset = choose(params, _moving(params, trainable))
    held = {"frozen": subset.frozen, "original": subset.trainable if with_original else None}

    def with_held(loss_fn):
        def loss(moving, held, batch, key):
            now = join(moving, held["frozen"])
            if not with_original:
                return loss_fn(now, batch, key), held
            return loss_fn(now, join(held["original"], held["frozen"]), batch, key), held

        return loss

    retain_loss, forget_loss = losses
    if row.name == CONTROL:
        step = _retain_step(with_held(retain_loss), tx)
    else:
        step = make_unlearning_step(
            with_held(retain_loss),
            tx,
            # One loss on both sides is traced once.
            forget_loss_fn=None if forget_loss is retain_loss else with_held(forget_loss),
            has_model_state=True,
            model_state_from="none",
            descend=row.descend,
        )
    return Job(
        step=step,
        start=lambda key: create_state(subset.trainable, tx, key, model_state=held),
        streams=streams,
        finish=lambda state: join(state.params, state.model_state["frozen"]),
        steps=steps,
        cost=cost,
    )


def _retain_step(loss_fn: Callable, tx: optax.GradientTransformation) -> Callable:
    """The step of the control: a forget batch comes in and is not looked at."""
    train = make_training_step(loss_fn, tx, has_model_state=True)

    def step(state, retain_batch, forget_batch):
        del forget_batch
        state, metrics = train(state, retain_batch)
        return state, {"retain_loss": metrics["loss"]}

    return step


def _moving(params: Any, where: str | Callable | None) -> Callable:
    """The same choice among the floating-point parameters."""
    if isinstance(where, str):
        # Raises, with the expression in the message, if it chooses nothing.
        choose(params, where)
        expression = re.compile(where)

    def moves(path, leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return False
        if isinstance(where, str):
            return expression.search(path) is not None
        return where is None or where(path, leaf)

    return moves


def read_sides(retain: Any, forget: Any) -> tuple[Examples, Examples]:
    """Reads and checks the data on both sides, see `read_examples`.

    Raises:
      ValueError: as `read_examples`, or if the two sides are not of the same kind.
    """
    sides = read_examples(retain, "retain"), read_examples(forget, "forget")
    check_alike(*sides)
    return sides


def check_options(learning_rate: float, batch_size: int, steps: int) -> None:
    """Refuses options out of range.

    Raises:
      ValueError: naming the option.
    """
    number = isinstance(learning_rate, int | float)
    if not (number and learning_rate > 0 and math.isfinite(learning_rate)):
        raise ValueError(f"learning_rate: expected a positive number, got {learning_rate!r}.")
    for name, value in (("batch_size", batch_size), ("steps", steps)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: expected an integer of at least 1, got {value!r}.")


def check_loss(loss_fn: Callable, params: Any, examples: Examples) -> None:
    """Tries a loss on the shapes of some examples, without computing anything.

    Raises:
      ValueError: with the first line of what went wrong.
    """
    batch = examples.first(LOOKED_AT)
    try:
        found = jax.eval_shape(loss_fn, params, batch, jax.random.key(0))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        line = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(
            f"model: expected a loss of images of shape {examples.shape} with these parameters, "
            f"got {type(error).__name__}: {line}"
        ) from error
    if getattr(found, "shape", None) != () or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(f"model: expected a loss that is one number, got {found}.")


def cost_of(row: Method, batch_size: int) -> str:
    """What a step costs, in words."""
    parts = [f"{row.gradients:g} gradient{'s' if row.gradients != 1 else ''}"]
    if row.products:
        parts.append(f"{row.products:g} Hessian-vector product{'s' if row.products != 1 else ''}")
    return f"{' and '.join(parts)} of {batch_size} examples a step"
