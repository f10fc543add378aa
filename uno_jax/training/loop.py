"""The loops around a step: train, and unlearn until a predicate says stop."""

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax

from uno_jax.training.finite import check_finite_row
from uno_jax.training.state import TrainState

Row = dict[str, Any]


class Result(NamedTuple):
    """What a loop returns.

    Attributes:
      state: the final `TrainState`.
      history: one dict per step, `step` (int, counted from 1) and the metrics of
        that step as Python floats, with what `evaluate` added.
      stopped: whether the predicate ended the loop, rather than `max_steps` or
        the end of the batches.
    """

    state: TrainState
    history: list[Row]
    stopped: bool


def print_progress(every_seconds: float = 1.0, file=None) -> Callable[[Row], None]:
    """Returns a report function that writes one line at most so often.

    Args:
      every_seconds: shortest time between two lines.
      file: where to write; standard error if `None`.

    Returns:
      A function to give to `train` or `unlearn` as `report`.
    """
    last = -float("inf")

    def report(row: Row) -> None:
        nonlocal last
        if time.monotonic() - last < every_seconds:
            return
        last = time.monotonic()
        values = "  ".join(f"{k} {float(v):.4g}" for k, v in row.items() if k != "step")
        print(f"step {row['step']}  {values}", file=file or sys.stderr)

    return report


def settled(tolerance: float) -> Callable[[Row], bool]:
    """Returns a predicate that stops when a matching objective hardly falls any more.

    No classifier is asked: the method stops itself, by its own loss on the half of each
    batch that the step has not seen.

    Args:
      tolerance: relative decrease of J in one step below which to stop, at least 0.

    Returns:
      A function to give to `unlearn` as `forgotten`, for the rows of a step that
      reports `objective` and `objective_after`, see `make_matching_step`.

    Raises:
      ValueError: for a negative tolerance.

    Examples:
      >>> import uno_jax as uno
      >>> stop = uno.training.settled(0.05)
      >>> stop({"objective": 10.0, "objective_after": 8.0})
      False
      >>> stop({"objective": 8.0, "objective_after": 7.9})
      True
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance: expected a number of at least 0, got {tolerance}.")

    def stop(row: Row) -> bool:
        before, after = float(row["objective"]), float(row["objective_after"])
        return before - after < tolerance * before

    return stop


def _loop(
    run_step,
    state,
    batches,
    max_steps,
    *,
    evaluate=None,
    evaluate_every=1,
    stop=None,
    report=None,
    after=None,
    check_finite=True,
):
    history: list[Row] = []
    stopped = False
    names: list[str] = []  # of the newest row's metrics; turns of a step may have others
    for index, arguments in enumerate(batches, start=1):
        state, metrics = run_step(state, *arguments)
        # The step before, so that the device need not wait for the host.
        if check_finite and history:
            check_finite_row(history[-1], names, state)
        names = list(metrics)
        row: Row = {"step": index, **metrics}
        if evaluate is not None and (index % evaluate_every == 0 or index == max_steps):
            row.update(evaluate(state))
        history.append(row)
        if report is not None:
            report(row)
        stopped = stop is not None and bool(stop(row))
        if after is not None:
            after(state, row)
        if stopped or index == max_steps:
            break
    if check_finite and history:
        check_finite_row(history[-1], names, state)
    history = [
        {k: v if k == "step" else float(v) for k, v in row.items()}
        for row in jax.device_get(history)
    ]
    return Result(state, history, stopped)


def train(
    step: Callable,
    state: TrainState,
    batches: Iterable,
    *,
    max_steps: int,
    report: Callable[[Row], None] | None = None,
    after: Callable[[TrainState, Row], None] | None = None,
    check_finite: bool = True,
) -> Result:
    """Runs a training step over batches.

    Args:
      step: `step(state, batch) -> (state, metrics)`, jitted by the caller.
      state: where to start; donated if `step` donates it.
      batches: iterable of batches, at least `max_steps` of them or it ends early.
      max_steps: steps to make, at least 1.
      report: called with every row, whose metrics are still device scalars: a
        report that converts them waits for the device.
      after: called last with the state and the row of every step, for example to save;
        what it raises ends the loop.
      check_finite: whether to stop at metrics that are not finite.

    Returns:
      A `Result`.

    Raises:
      ValueError: if `max_steps` is less than 1.
      NonFiniteError: at metrics that are not finite, naming the step, the metrics and the
        leaves of the state.
    """
    _check_steps(max_steps)
    return _loop(
        step,
        state,
        ((b,) for b in batches),
        max_steps,
        report=report,
        after=after,
        check_finite=check_finite,
    )


def unlearn(
    step: Callable,
    state: TrainState,
    retain_batches: Iterable,
    forget_batches: Iterable,
    *,
    max_steps: int,
    evaluate: Callable[[TrainState], Row] | None = None,
    evaluate_every: int = 1,
    forgotten: Callable[[Row], bool] | None = None,
    report: Callable[[Row], None] | None = None,
    after: Callable[[TrainState, Row], None] | None = None,
    check_finite: bool = True,
) -> Result:
    """Runs an unlearning step until the model has forgotten.

    For deletion requests over time, with a ledger, see `unlearn_requests`.

    Args:
      step: `step(state, retain_batch, forget_batch) -> (state, metrics)`, as
        `make_unlearning_step` builds it, jitted by the caller.
      state: where to start; donated if `step` donates it.
      retain_batches: iterable of retain batches.
      forget_batches: iterable of forget batches. The loop ends with the shorter.
      max_steps: steps after which to give up, at least 1.
      evaluate: looks at the state after a step and returns further metrics, for
        example `{"forgotten_fraction": 0.07}`.
      evaluate_every: steps between two evaluations; the last is always evaluated.
      forgotten: sees the row of each step (step, metrics, evaluation) and says
        whether to stop. A classifier that later judges the result must not be
        asked here: what a method was stopped by, it was also selected by.
      report: called with the row of every step, see `print_progress`.
      after: called last with the state and the row of every step, for example to save;
        what it raises ends the loop.
      check_finite: whether to stop at metrics that are not finite. Not, for a method that
        is to destroy, or under `optax.apply_if_finite`.

    Returns:
      A `Result`.

    Raises:
      ValueError: if `max_steps` or `evaluate_every` is less than 1.
      NonFiniteError: at metrics that are not finite, naming the step, the metrics and the
        leaves of the state.

    Examples:
      >>> import itertools, jax, jax.numpy as jnp, optax
      >>> import uno_jax as uno
      >>> loss_fn = lambda params, batch, key: jnp.sum((params - batch) ** 2)
      >>> tx = optax.chain(uno.surgery(), optax.sgd(0.1))
      >>> step = jax.jit(uno.make_unlearning_step(loss_fn, tx))
      >>> result = uno.unlearn(
      ...     step,
      ...     uno.create_state(jnp.zeros(2), tx, jax.random.key(0)),
      ...     itertools.repeat(jnp.array([1.0, 0.0])),
      ...     itertools.repeat(jnp.array([-1.0, 1.0])),
      ...     max_steps=50,
      ...     forgotten=lambda row: row["forget_loss"] > 2.03)
      >>> result.stopped
      True
    """
    _check_steps(max_steps)
    if evaluate_every < 1:
        raise ValueError(f"evaluate_every: expected at least 1, got {evaluate_every}.")
    batches = zip(retain_batches, forget_batches, strict=False)
    return _loop(
        step,
        state,
        batches,
        max_steps,
        evaluate=evaluate,
        evaluate_every=evaluate_every,
        stop=forgotten,
        report=report,
        after=after,
        check_finite=check_finite,
    )


def _check_steps(max_steps: int) -> None:
    if max_steps < 1:
        raise ValueError(f"max_steps: expected at least 1, got {max_steps}.")
