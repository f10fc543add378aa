"""Make a trained model forget: from a model and two data sets to new parameters."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from uno_jax.methods.diffusion import exchange_labels
from uno_jax.methods.gradient import read_sides
from uno_jax.methods.job import Job
from uno_jax.methods.recipes import Recipe, recipe_for
from uno_jax.training.digest import digest
from uno_jax.training.examples import Examples
from uno_jax.training.finite import (
    NonFiniteError,
    check_finite_row,
    non_finite_leaves,
    some_of,
)
from uno_jax.training.loop import unlearn
from uno_jax.training.state import TrainState, copy_state
from uno_jax.training.turns import jit_turns, turns_of

CHECKPOINTS = "checkpoints"
"""The folder of the checkpoints within that of a run."""
EVERY_MINUTES = 10.0
SHOWN = ("retain_loss", "forget_loss", "objective_after")
"""Metrics of a line of progress, where a step reports them."""


class Forgotten(NamedTuple):
    """What `forget` returns.

    Attributes:
      params: the new parameters, a tree like those that were given.
      history: one dict for each step: `step`, counted from 1, and the metrics of the step as
        floats, such as `retain_loss` and `forget_loss`, from before its update.
      steps: how many steps were made in all.
      cost: what a step costs, in words.
      method: the name of the method.
      exchange: from each forgotten label to the one that it draws from now on; `None` for
        models or methods without an exchange.
    """

    params: Any
    history: list[dict[str, float]]
    steps: int
    cost: str
    method: str
    exchange: dict[int, int] | None


def forget(
    model: Any,
    params: Any,
    *,
    retain: Any,
    forget: Any,
    method: str = "redirect",
    steps: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    exchange: int | Mapping[int, int] | None = None,
    trainable: str | None = None,
    progress: bool = True,
    save_every: int = 25,
    **options: Any,
) -> Forgotten:
    """Makes a trained generative model forget some of what it was trained on.

    The method is compiled and run for its number of steps. With `out`, the run is saved as it
    goes, and the same call goes on from there after an interruption of any kind, to the same
    bits; it returns at once when the run is complete.

    Args:
      model: how the network is used, without its parameters: a `VAE`, a `diffusion.Diffusion`,
        or for the gradient methods any object with `loss_fn(params, batch, key)`.
      params: parameters of the trained model, a pytree of arrays; they are not changed.
      retain: what the model shall keep. An array (N, ...) of floating-point images in the range
        the model was trained on; a dict with `"image"` and, for a conditional model, `"label"`
        (N,) int; or an iterable of such batches that can be read more than once.
      forget: what it shall forget, of the same kind. A conditional model forgets whole labels.
      method: `"redirect"`, or another that `methods.recipes.recipe_for` knows for the model.
      steps: how many steps to make; by default those of the method.
      seed: decides the batches and the noise.
      out: a folder to save the run in; needs the extra `experiments`.
      exchange: of a conditional model, the retained label that the forgotten one draws from
        now on, or a dict from forgotten to retained labels. By default, the one whose mean
        image is nearest to that of the forgotten.
      trainable: regular expression of the paths of the parameters that may move; the method's
        own choice if `None`.
      progress: whether to write lines of progress to standard error.
      save_every: steps between two checkpoints in `out`; there is one every ten minutes too.
      **options: of the method, see its recipe.

    Returns:
      A `Forgotten`, with the new `params`.

    Raises:
      ValueError: for data, labels or options that do not fit, a method that the model cannot
        run, or a folder that holds another run.
      NonFiniteError: if a loss or a gradient is not finite, naming the step.
      ImportError: with `out`, if the extra is not installed.
      OSError: if the run cannot be saved.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np
      >>> from uno_jax import diffusion
      >>> from uno_jax.forgetting import forget
      >>> def network(params, noisy, times, labels):
      ...     return noisy * params["scale"][labels][:, None] + params["bias"]
      >>> model = diffusion.Diffusion(network, diffusion.cosine(100))
      >>> params = {"scale": jnp.array([0.1, 0.2, 0.9]), "bias": jnp.zeros(2)}
      >>> images, labels = np.random.default_rng(0).normal(size=(90, 2)), np.arange(90) % 3
      >>> sides = {
      ...     name: {"image": images[rows].astype(np.float32), "label": labels[rows]}
      ...     for name, rows in (("retain", labels != 2), ("forget", labels == 2))}
      >>> result = forget(model, params, **sides, exchange=1, trainable="scale", progress=False)
      >>> result.exchange, result.steps
      ({2: 1}, 100)
    """
    recipe = recipe_for(method, model)
    if wrong := non_finite_leaves(params):
        raise ValueError(f"params: expected finite numbers, got others at {some_of(wrong)}.")
    kept, gone = read_sides(retain, forget)
    chosen = _chosen(recipe, kept, gone, steps, exchange, trainable, options)
    job = recipe.build(model, params, kept, gone, **chosen)
    total = job.steps if steps is None else steps
    if total < 1:
        raise ValueError(f"steps: expected at least 1, got {total}.")
    pairs = chosen.get("exchange")
    say = _Line(method, total, pairs) if progress else None
    if out is None:
        state, history = _run(job, total, seed, say)
    else:
        run = {
            "method": method,
            "family": recipe.family,
            "model": _described(model),
            "params": digest(params),
            "options": {**recipe.options, **chosen},
            "steps": total,
            "seed": seed,
        }
        manifest = _manifest(run, kept, gone)
        folder = Path(out) / CHECKPOINTS
        state, history = _run_saved(job, total, seed, say, folder, manifest, save_every)
    return Forgotten(job.finish(state), history, len(history), job.cost, method, pairs)


def _chosen(
    recipe: Recipe,
    retain: Examples,
    forget: Examples,
    steps: int | None,
    exchange: Any,
    trainable: str | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The options that the recipe is called with."""
    given = {"steps": steps, "exchange": exchange, "trainable": trainable}
    chosen = options | {name: value for name, value in given.items() if value is not None}
    if unknown := sorted(chosen.keys() - recipe.options.keys()):
        raise ValueError(
            f"options: expected some of {', '.join(sorted(recipe.options))} for "
            f"method={recipe.method!r} on {recipe.family}, got {', '.join(unknown)}."
        )
    labelled = "label" in retain.keys
    if labelled and "exchange" in recipe.options and (recipe.exchanges or exchange is not None):
        chosen["exchange"] = exchange_labels(retain, forget, exchange)
    return chosen


def _manifest(run: dict[str, Any], retain: Examples, forget: Examples) -> dict[str, Any]:
    """What the folder of a run belongs to."""
    from uno_jax import checkpoints

    data = f"{retain.fingerprint()} {forget.fingerprint()}"
    return checkpoints.make_manifest(_as_json("options", run), data)


def _compiled(job: Job, state: TrainState) -> Callable:
    # A step that takes turns is a branch inside one program, which is slow on CPUs.
    return jit_turns(job.step) if turns_of(state) else jax.jit(job.step, donate_argnums=0)


def _streams(job: Job, seed: int, done: int) -> tuple[Iterator, Iterator]:
    streams = job.streams(seed)
    for stream in streams:
        if hasattr(stream, "skip"):
            stream.skip(done)
        else:
            for _ in range(done):
                next(stream)
    return streams


def _drive(
    job: Job,
    state: TrainState,
    seed: int,
    total: int,
    history: list[dict],
    say: Any,
    save: Callable[[TrainState, int, Callable], None] | None = None,
) -> TrainState:
    """Makes the steps that a history lacks, and adds them to it.

    Args:
      job: what to run.
      state: after as many steps as the history has; donated.
      seed: of the batches.
      total: steps in all.
      history: of the steps made so far; extended in place before each save and at the end.
      say: told of each step.
      save: `save(state, step, settle)`, called after each step; `settle(state)` brings the
        history up to this step.

    Returns:
      The last state.
    """
    done, rows = len(history), []

    def settle(state):
        """Moves rows to the history, as floats."""
        check_finite_row(rows[-1], rows[-1], state)
        history.extend(_floats(rows))
        rows.clear()

    def after(state, row):
        if rows:
            # The step before, so that the device need not wait for the host.
            check_finite_row(rows[-1], rows[-1], state)
        rows.append({**row, "step": done + row["step"]})
        if save is not None:
            save(state, rows[-1]["step"], settle)

    result = unlearn(
        _compiled(job, state),
        state,
        *_streams(job, seed, done),
        max_steps=total - done,
        report=say,
        after=after,
        # An error is to name the step of the whole run.
        check_finite=False,
    )
    if rows:
        settle(result.state)
    return result.state


def _run(job: Job, total: int, seed: int, say: Any) -> tuple[TrainState, list[dict]]:
    history: list[dict] = []
    # The caller's arrays are in the state, and the step donates it.
    state = copy_state(job.start(jax.random.key(seed)))
    return _drive(job, state, seed, total, history, say), history


def _run_saved(
    job: Job,
    total: int,
    seed: int,
    say: Any,
    folder: Path,
    manifest: dict[str, Any],
    save_every: int,
) -> tuple[TrainState, list[dict]]:
    from uno_jax import checkpoints

    state = copy_state(job.start(jax.random.key(seed)))
    with checkpoints.Series(
        folder,
        manifest,
        every_steps=save_every,
        every_minutes=EVERY_MINUTES,
        report=lambda text: print(text, file=sys.stderr),
    ) as series:
        history: list[dict] = []
        restored = series.restore(state)
        if restored is not None:
            state, history = restored.state, list(restored.extras["history"])
        if len(history) >= total:
            return state, history
        if history and say is not None:
            say.goes_on(len(history))

        def save(state, at, settle):
            if series.due(at) or at == total:
                settle(state)
                series.save(state, {"history": history})

        with _naming(series):
            state = _drive(job, state, seed, total, history, say, save)
        series.wait()
    return state, history


def _floats(rows: list[dict]) -> list[dict]:
    return [
        {name: value if name == "step" else float(value) for name, value in row.items()}
        for row in jax.device_get(rows)
    ]


@contextlib.contextmanager
def _naming(series: Any) -> Iterator[None]:
    """Adds to an error of numbers what is left on disk."""
    try:
        yield
    except NonFiniteError as error:
        if "checkpoint" in str(error):
            raise
        with contextlib.suppress(OSError):
            series.wait()
        good = series.last_good
        raise NonFiniteError(f"{error} {good[:1].upper()}{good[1:]}") from error


def _described(model: Any) -> dict[str, Any]:
    """What of a model can be told apart: its numbers and words, not its functions."""
    fields = model._asdict() if hasattr(model, "_asdict") else getattr(model, "__dict__", {})
    told: dict[str, Any] = {"type": type(model).__name__}
    for name, value in fields.items():
        if value is None or isinstance(value, int | float | str):
            told[name] = value
        elif hasattr(value, "_asdict"):
            told[name] = _described(value)
    return told


def _as_json(name: str, value: Any) -> Any:
    """The same in what JSON gives back, so that two runs can be compared."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _as_json(str(key), part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(name, part) for part in value]
    if callable(value) and "<lambda>" not in getattr(value, "__qualname__", "<lambda>"):
        return f"{value.__module__}:{value.__qualname__}"
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return digest(value)
    raise ValueError(
        f"{name}: expected a number, a word, an array or a function with a name, so that a saved "
        f"run can be told from another, got {type(value).__name__}; run it without out."
    )


class _Line:
    """A line of progress on standard error, at most so often."""

    def __init__(self, method: str, total: int, pairs: dict[int, int] | None):
        self._method, self._total = method, total
        self._begin = self._last = None
        self._done = 0
        self._on_terminal = sys.stderr.isatty()
        self._every = 1.0 if self._on_terminal else 10.0
        if pairs:
            sent = ", ".join(f"{label} to {other}" for label, other in list(pairs.items())[:5])
            more = f" and {len(pairs) - 5} more" if len(pairs) > 5 else ""
            print(f"{method}: forgotten labels go to others: {sent}{more}", file=sys.stderr)

    def goes_on(self, done: int) -> None:
        """Says that a run is resumed."""
        self._done = done
        print(f"{self._method}: goes on from step {done}", file=sys.stderr)

    def __call__(self, row: dict[str, Any]) -> None:
        now, at = time.monotonic(), self._done + row["step"]
        if self._begin is None:
            # From the first step on: what came before was compilation.
            self._begin = now
        ends = at == self._total
        if self._last is not None and now - self._last < self._every and not ends:
            return
        self._last = now
        made = row["step"] - 1
        left = (now - self._begin) / made * (self._total - at) if made else None
        values = "  ".join(f"{name} {float(row[name]):.4g}" for name in SHOWN if name in row)
        text = f"{self._method}: step {at} of {self._total}"
        text += f", {left:.0f} s left" if left is not None and not ends else ""
        end = "\r" if self._on_terminal and not ends else "\n"
        start = "\033[K" if self._on_terminal else ""
        print(f"{start}{text}  {values}", end=end, file=sys.stderr, flush=True)
