"""A series of checkpoints: when to save, which to keep, and what to do about damage."""

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uno_jax import trees
from uno_jax.checkpoints import manifest as manifests
from uno_jax.checkpoints import store
from uno_jax.training.finite import NonFiniteError, non_finite_leaves, some_of


class Restored(NamedTuple):
    """What a series gives back.

    Attributes:
      state: the state, where the leaves of the template lie.
      extras: what was saved beside it.
      step: of the checkpoint.
    """

    state: Any
    extras: Any
    step: int


class Series:
    """The checkpoints of one run, in one folder.

    A checkpoint is a state, its checksum, and `extras`, any JSON value: positions of the
    input iterators, a history. It is written in the background, beside its place, and
    renamed when complete; so what an interruption leaves is complete or not there. What
    never is saved is a state that is not finite. A checkpoint that cannot be read, or whose
    state has another checksum than when it was saved, is passed over for the one before, and
    `report` is told.

    Args:
      folder: of the series, created if it is not there.
      manifest: what it belongs to, see `make_manifest`.
      every_steps: save when so many steps were made since the last; never if `None`.
      every_minutes: save when so many minutes have passed; never if `None`.
      keep: how many of the newest to keep, at least 1; one more helps against damage.
      best: (name, "min" or "max"): keep beside them the one with the best of this metric.
      report: told in a sentence of what is passed over, and of other versions.

    Raises:
      ValueError: for sizes out of range, or if the folder holds the series of another
        configuration or of other data, naming what differs.
      OSError: if the folder cannot be written.

    Examples:
      >>> import tempfile, jax, jax.numpy as jnp, optax
      >>> import uno_jax as uno
      >>> from uno_jax import checkpoints
      >>> state = uno.create_state(jnp.ones(2), optax.adam(1e-3), jax.random.key(0))
      >>> manifest = checkpoints.make_manifest({"learning_rate": 1e-3}, data="mnist")
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     with checkpoints.Series(folder, manifest, every_steps=10) as series:
      ...         series.save(state, {"position": 3})
      ...     with checkpoints.Series(folder, manifest) as series:
      ...         print(series.restore(state).extras)
      {'position': 3}
    """

    def __init__(
        self,
        folder: str | Path,
        manifest: Mapping[str, Any],
        *,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        keep: int = 2,
        best: tuple[str, str] | None = None,
        report: Callable[[str], None] = print,
    ):
        for name, value, least in (
            ("every_steps", every_steps, 1),
            ("every_minutes", every_minutes, 0),
            ("keep", keep, 1),
        ):
            if value is not None and not value >= least:
                raise ValueError(f"{name}: expected at least {least}, got {value}.")
        if best is not None and best[1] not in ("min", "max"):
            raise ValueError(f"best: expected ('metric', 'min' or 'max'), got {best}.")
        self.folder = Path(folder).absolute()
        self._manifest = dict(manifest)
        self._every_steps, self._every_minutes = every_steps, every_minutes
        self._report = report
        self._files = store.Steps(self.folder, self._manifest, keep=keep, best=best)
        self._check_manifest()
        self._saved_step = self.latest or 0
        self._saved_time = time.monotonic()

    def __enter__(self) -> "Series":
        return self

    def __exit__(self, kind, *exception) -> None:
        self._files.close(wait=kind is None)

    @property
    def latest(self) -> int | None:
        """The step of the newest checkpoint, damaged or not."""
        return max(self._files.steps(), default=None)

    def due(self, step: int) -> bool:
        """Whether it is time to save."""
        steps, minutes = self._every_steps, self._every_minutes
        if steps is not None and step - self._saved_step >= steps:
            return True
        return minutes is not None and time.monotonic() - self._saved_time >= 60 * minutes

    def save(
        self, state: Any, extras: Any = None, *, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Saves a state in the background; waits for the save before it.

        Args:
          state: a `TrainState`, whose `step` numbers the checkpoint. It may be donated as
            soon as this returns.
          extras: a JSON value.
          metrics: numbers by name, for `best`.

        Raises:
          NonFiniteError: if the state is not finite, naming the step, the leaves and the
            last good checkpoint. Nothing is saved.
          OSError: if this or the save before could not be written, naming the last good one.
        """
        step = int(state.step)
        if leaves := non_finite_leaves(state):
            raise NonFiniteError(
                f"step {step}: the state is not finite at {some_of(leaves)}; {self.last_good}"
            )
        self.wait()
        beside = {"leaves": _leaves(state), "extras": extras}
        if jax.default_backend() == "cpu":
            # There a buffer is written from where it lies, and the next step donates it.
            state = jax.tree.map(jnp.copy, state)
        self._saved_step, self._saved_time = step, time.monotonic()
        with self._naming(step):
            self._files.save(step, state, beside, metrics)

    def wait(self) -> None:
        """Waits until what was saved is on disk.

        Raises:
          OSError: if it could not be written, naming the last good one.
        """
        with self._naming(self._saved_step):
            self._files.wait()

    def restore(self, like: Any) -> Restored | None:
        """Restores the newest checkpoint that is whole.

        Args:
          like: a state of the same structure, shapes and dtypes; its values are not used.
            Arrays land where its leaves lie, which may be another mesh than they were on.

        Returns:
          A `Restored`; `None` if there is no checkpoint.

        Raises:
          ValueError: if the checkpoint is of another model or optimizer, naming the place,
            or if all are damaged, naming each.
        """
        self.wait()
        damage = []
        for step in reversed(self._files.steps()):
            try:
                state, extras = self._read(step, like)
            except store.DamagedError as error:
                damage.append(f"checkpoint {step} is damaged: {error}")
                aside = self._files.put_aside(step)
                self._report(
                    f"{damage[-1]}; put aside as {aside.name}, going on from the one before."
                )
                continue
            self._saved_step = step
            return Restored(state, extras, step)
        if damage:
            raise ValueError(
                f"{self.folder}: expected a checkpoint that can be read, got {'; '.join(damage)}."
            )
        return None

    def _read(self, step, like):
        beside = self._files.beside(step)
        shapes = {name: shape for name, (shape, _) in beside["leaves"].items()}
        store.check_leaves(self.folder / str(step), shapes, store.named_leaves(like))
        state = self._files.restore(step, like)
        if wrong := [
            name for name, said in _leaves(state).items() if said != beside["leaves"][name]
        ]:
            raise store.DamagedError(f"other values than were saved at {some_of(wrong)}")
        return state, beside["extras"]

    def _check_manifest(self):
        saved = self._files.manifest
        fatal, other = manifests.differences(saved, self._manifest)
        if fatal:
            raise ValueError(
                f"{self.folder} holds the checkpoints of another run ({'; '.join(fatal)}). "
                "Give another folder, or remove that one."
            )
        if other:
            self._report(f"{self.folder} was written with other libraries: {'; '.join(other)}.")

    @property
    def last_good(self) -> str:
        """A sentence that names the newest checkpoint on disk."""
        steps = self._files.steps()
        if not steps:
            return f"there is no checkpoint before it in {self.folder}."
        return f"the last good checkpoint is {max(steps)} in {self.folder}."

    @contextlib.contextmanager
    def _naming(self, step):
        """Says of an error in writing which checkpoint it concerns, and which is the last good."""
        try:
            yield
        except store.WriteError as error:
            raise OSError(
                f"checkpoint {step} could not be written: {error}; {self.last_good}"
            ) from error


def _sum(leaf, xp):
    bits = leaf.view(f"uint{8 * leaf.dtype.itemsize}")
    if bits.dtype.itemsize == 8:
        bits = bits ^ (bits >> 32)
    bits = bits.astype(xp.uint32)
    # Odd weights: two values that change places change the sum. Made by axis, the array
    # stays spread as it is.
    weights, stride = xp.ones(bits.shape, xp.uint32), 2
    for axis in reversed(range(bits.ndim)):
        places = xp.arange(bits.shape[axis], dtype=xp.uint32)
        places = places.reshape(-1, *(1,) * (bits.ndim - 1 - axis))
        weights = weights + xp.uint32(stride % 2**32) * places
        stride *= bits.shape[axis]
    return xp.sum(bits * weights, dtype=xp.uint32)


@jax.jit
def _sums(leaves):
    return [_sum(leaf, jnp) for leaf in leaves]


def checksums(tree: Any) -> dict[str, int]:
    """A sum over the bits of each leaf, the same on whatever devices it lies."""
    named = store.named_leaves(tree)
    leaves = list(named.values())
    if trees.on_host(leaves):
        # Nothing to compile.
        values = [_sum(np.asarray(leaf), np) for leaf in leaves]
    else:
        values = jax.device_get(_sums(leaves))
    return {name: int(value) for name, value in zip(named, values, strict=True)}


def _leaves(tree):
    """Shape and checksum by path, as JSON gives them back."""
    shapes = {name: list(jnp.shape(leaf)) for name, leaf in store.named_leaves(tree).items()}
    return {name: [shapes[name], value] for name, value in checksums(tree).items()}
