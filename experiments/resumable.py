"""Training and unlearning that go on from their last checkpoint."""

import json
import time
from collections.abc import Callable
from typing import Any

import jax

import uno_jax as uno
from experiments import common
from uno_jax import checkpoints


def train_or_restore(
    folder: common.RunFolder,
    name: str,
    step: Callable,
    state: uno.TrainState,
    batches: Any,
    *,
    steps: int,
    save_every: int = 1000,
) -> uno.TrainState:
    """Trains for a number of steps, or takes what a checkpoint already holds.

    Saves every `save_every` steps and at the end, so that an interrupted run
    goes on from there, with the batches and the noise it would have had.

    Args:
      folder: where the checkpoint lies.
      name: its name, also the title of the progress bar.
      step: the training step, not jitted.
      state: where training starts.
      batches: iterator from its beginning; advanced past what was already used.
      steps: steps in all.
      save_every: steps between two checkpoints.

    Returns:
      The trained state.
    """
    path = folder.checkpoint(name)
    if checkpoints.exists(path):
        state = checkpoints.restore(path, state)
    done = int(state.step)
    if done < steps:
        for _ in range(done):
            next(batches)
        elapsed = seconds_of(folder, name) if done else 0.0
        begin = time.perf_counter()
        step = jax.jit(step, donate_argnums=0)
        state = uno.copy_state(state)
        with common.Bar(name, steps, every=50) as bar:
            while done < steps:
                bar.offset = done
                result = uno.train(
                    step, state, batches, max_steps=min(save_every, steps - done), report=bar
                )
                state = result.state
                folder.log(
                    name, [{**row, "step": done + row["step"]} for row in result.history[::20]]
                )
                done = int(state.step)
                checkpoints.save(path, state)
                seconds = elapsed + time.perf_counter() - begin
                common.write_whole(
                    folder.checkpoint(f"{name}.json"), json.dumps({"seconds": seconds})
                )
    return state


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
) -> uno.Result:
    """Unlearns for a number of steps or until forgotten, or takes what a checkpoint holds.

    State and history are saved every `save_every` steps and at the end: an interrupted
    run goes on with the batches and the noise it would have had.

    Args:
      folder: where the checkpoint lies; its history is beside, as `NAME.json`.
      name: of the checkpoint, also the title of the progress bar.
      step: the unlearning step, not jitted.
      state: where unlearning starts.
      streams: makes the retain and the forget batches, from their beginning.
      steps: most steps.
      evaluate: see `uno.unlearn`.
      forgotten: see `uno.unlearn`.
      save_every: steps between two checkpoints.

    Returns:
      A `uno.Result`; the rows of its history count steps from the beginning. The last row
      and those before a checkpoint say how many `seconds` it took, interruptions aside.
    """
    path, file = folder.checkpoint(name), folder.checkpoint(f"{name}.json")
    history: list[dict] = []
    stopped = False
    if checkpoints.exists(path) and file.exists():
        state = checkpoints.restore(path, state)
        # The history is written first: it may be ahead of the state, never behind.
        saved = json.loads(file.read_text())
        history = saved["history"][: int(state.step)]
        stopped = saved["stopped"] and len(history) == len(saved["history"])
    if stopped or len(history) >= steps:
        return uno.Result(state, history, stopped)
    retain, forget = streams()
    for _ in history:
        next(retain), next(forget)
    step = jax.jit(step, donate_argnums=0)
    state = uno.copy_state(state)
    elapsed = history[-1]["seconds"] if history else 0.0
    begin = time.perf_counter()
    with common.Bar(name, steps) as bar:
        while not stopped and len(history) < steps:
            bar.offset = len(history)
            state, rows, stopped = uno.unlearn(
                step,
                state,
                retain,
                forget,
                max_steps=min(save_every, steps - len(history)),
                evaluate=evaluate,
                forgotten=forgotten,
                report=bar,
            )
            rows = [{**row, "step": bar.offset + row["step"]} for row in rows]
            rows[-1]["seconds"] = elapsed + time.perf_counter() - begin
            history += rows
            folder.log(name, rows)
            common.write_whole(file, json.dumps({"stopped": stopped, "history": history}))
            checkpoints.save(path, state)
    return uno.Result(state, history, stopped)
