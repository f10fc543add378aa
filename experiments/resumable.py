"""Training and unlearning that go on from their last checkpoint."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

import uno_jax as uno
from experiments import common
from experiments.devices import ONE, Devices
from uno_jax import checkpoints

EVERY_MINUTES = 10.0
LOGGED = 20
"""Training steps between two rows of `metrics.jsonl`."""


@contextlib.contextmanager
def _opened(
    folder: common.RunFolder, name: str, save_every: int
) -> Iterator[tuple[checkpoints.Series, checkpoints.Preemption]]:
    """The checkpoints of one run; a request to end is taken, an error says what is left."""
    manifest = checkpoints.make_manifest(folder.config, folder.data)
    with (
        checkpoints.Preemption() as preemption,
        checkpoints.Series(
            folder.checkpoint(name),
            manifest,
            every_steps=save_every,
            every_minutes=EVERY_MINUTES,
            report=lambda text: common.console.print(text, style="yellow", markup=False),
        ) as series,
    ):
        yield series, preemption


def _leave(series: checkpoints.Series, asked: bool) -> None:
    if asked:
        series.wait()
        common.console.print("asked to end: saved; the same command goes on from here")
        raise SystemExit(0)


def _move_to(batches: Any, done: int, position: Any) -> None:
    """Moves an iterator past what was used: at once if it can, else one by one."""
    if position is not None:
        batches.set_state(position)
        return
    for _ in range(done):
        next(batches)


def _position(batches: Any) -> Any:
    return batches.get_state() if hasattr(batches, "get_state") else None


def train_or_restore(
    folder: common.RunFolder,
    name: str,
    step: Callable,
    state: uno.TrainState,
    batches: Any,
    *,
    steps: int,
    save_every: int = 1000,
    devices: Devices = ONE,
) -> uno.TrainState:
    """Trains for a number of steps, or takes what a checkpoint already holds.

    Saves every `save_every` steps or some minutes, when asked to end, and at the end, so
    that an interrupted run goes on from there, with the batches and the noise it would have
    had.

    Args:
      folder: where the checkpoints lie.
      name: of their series, also the title of the progress bar.
      step: the training step, not jitted.
      state: where training starts.
      batches: iterator from its beginning; moved past what was already used.
      steps: steps in all.
      save_every: steps between two checkpoints.
      devices: how the step is run.

    Returns:
      The trained state, on one device.

    Raises:
      NonFiniteError: at a loss that is not finite, naming the last good checkpoint.
    """
    with _opened(folder, name, save_every) as (series, preemption):
        state = devices.place(state)
        restored = series.restore(devices.kept(state))
        extras = {"seconds": 0.0, "position": None}
        if restored is not None:
            state, extras = devices.taken(restored.state), restored.extras
        done = restored.step if restored else 0
        if done >= steps:
            return devices.whole(state)
        _move_to(batches, done, extras["position"])
        begin, rows = time.perf_counter(), []

        def after(state, row):
            at = done + row["step"]
            if row["step"] % LOGGED == 1:
                rows.append({**row, "step": at})
            asked = preemption.asked(at)
            if series.due(at) or at == steps or asked:
                seconds = extras["seconds"] + time.perf_counter() - begin
                series.save(
                    devices.kept(state), {"seconds": seconds, "position": _position(batches)}
                )
                folder.log(name, [{k: float(v) for k, v in row.items()} for row in rows])
                rows.clear()
                file = folder.checkpoint(f"{name}.json")
                common.write_whole(file, json.dumps({"seconds": seconds}))
            _leave(series, asked)

        with common.Bar(name, steps, every=50) as bar, _naming(series):
            bar.offset = done
            result = uno.train(
                devices.compile(step, state),
                state,
                devices.spread(batches),
                max_steps=steps - done,
                report=bar,
                after=after,
            )
    return devices.whole(result.state)


@contextlib.contextmanager
def _naming(series: checkpoints.Series) -> Iterator[None]:
    """Adds to an error of numbers what is left."""
    try:
        yield
    except uno.training.NonFiniteError as error:
        with contextlib.suppress(OSError):
            series.wait()
        raise uno.training.NonFiniteError(f"{error} {series.last_good}") from error


def seconds_of(folder: common.RunFolder, name: str) -> float:
    """How long a training of `train_or_restore` took, interruptions aside; 0 if not known."""
    file = folder.checkpoint(f"{name}.json")
    return json.loads(file.read_text())["seconds"] if file.exists() else 0.0


def unlearn_or_restore(
    folder: common.RunFolder,
    name: str,
    step: Callable,
    state: uno.TrainState,
    streams: Callable[[], tuple[Any, Any]],
    *,
    steps: int,
    evaluate: Callable[[uno.TrainState], dict] | None = None,
    forgotten: Callable[[dict], bool] | None = None,
    save_every: int = 25,
    devices: Devices = ONE,
) -> uno.training.Result:
    """Unlearns for a number of steps or until forgotten, or takes what a checkpoint holds.

    State and history are saved as in `train_or_restore`. A method that destroys the model
    ends there: the result has the last state that was saved, or the first, and the history
    up to the step that was not finite, whose row says `destroyed`.

    Args:
      folder: where the checkpoints lie.
      name: of their series, also the title of the progress bar.
      step: the unlearning step, not jitted.
      state: where unlearning starts.
      streams: makes the retain and the forget batches, from their beginning.
      steps: most steps.
      evaluate: see `uno.unlearn`; it sees the state on one device.
      forgotten: see `uno.unlearn`.
      save_every: steps between two checkpoints.
      devices: how the step is run.

    Returns:
      A `uno.training.Result`; the rows of its history count steps from the beginning. The last row
      and those before a checkpoint say how many `seconds` it took, interruptions aside.
    """
    with _opened(folder, name, save_every) as (series, preemption):
        first = state
        state = devices.place(state)
        restored = series.restore(devices.kept(state))
        history: list[dict] = []
        ended = stopped = asked = False
        if restored is not None:
            state = devices.taken(restored.state)
            history, stopped = restored.extras["history"], restored.extras["stopped"]
            ended = stopped or len(history) >= steps or "destroyed" in history[-1]
        if ended:
            return uno.training.Result(devices.whole(state), history, stopped)
        retain, forget = streams()
        for _ in history:
            next(retain), next(forget)
        done, unlogged = len(history), len(history)
        elapsed, begin = history[-1]["seconds"] if history else 0.0, time.perf_counter()

        def save(state, stopped):
            nonlocal unlogged
            history[-1]["seconds"] = elapsed + time.perf_counter() - begin
            series.save(devices.kept(state), {"history": history, "stopped": stopped})
            folder.log(name, history[unlogged:])
            unlogged = len(history)

        def after(state, row):
            row = {k: v if k == "step" else float(v) for k, v in jax.device_get(row).items()}
            history.append({**row, "step": done + row["step"]})
            nonlocal asked
            asked = preemption.asked(len(history))
            if len(history) == steps or (forgotten is not None and forgotten(row)):
                return
            if series.due(len(history)) or asked:
                save(state, False)
            _leave(series, asked)

        try:
            with common.Bar(name, steps) as bar:
                bar.offset = done
                result = uno.unlearn(
                    devices.compile(step, state),
                    state,
                    devices.spread(retain),
                    devices.spread(forget),
                    max_steps=steps - done,
                    evaluate=evaluate and (lambda state: evaluate(devices.whole(state))),
                    forgotten=forgotten,
                    report=bar,
                    after=after,
                )
            state, stopped = result.state, result.stopped
        except uno.training.NonFiniteError as error:
            common.console.print(f"{name}: destroyed at {error}", style="yellow", markup=False)
            history[-1]["destroyed"] = True
            series.wait()
            restored = series.restore(devices.kept(devices.place(first)))
            state = devices.taken(restored.state) if restored else devices.place(first)
        save(state, stopped)
        series.wait()
        _leave(series, asked)
    return uno.training.Result(devices.whole(state), history, stopped)
