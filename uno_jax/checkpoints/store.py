"""States on disk with Orbax: the only module that imports it."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from uno_jax import trees
from uno_jax._extras import require

require("orbax.checkpoint", "experiments")

from orbax.checkpoint import v1 as ocp  # noqa: E402


class WriteError(Exception):
    """Something could not be written."""


class DamagedError(Exception):
    """A checkpoint that cannot be read, or not as it was saved."""


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _without_keys(tree: Any) -> Any:
    # Typed PRNG keys travel as their integers; the template tells them apart again.
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {trees.path_name(path): leaf for path, leaf in leaves}


def named_leaves(tree: Any) -> dict[str, Any]:
    """The arrays of a state by path, PRNG keys as their integers."""
    return _named(_without_keys(tree))


def save(path: str | Path, state: Any) -> None:
    """Saves a pytree of arrays, typically a `TrainState`.

    The files are written beside `path` and renamed in one step, so that an
    interruption leaves either the old checkpoint or the new one.

    Args:
      path: the folder of this checkpoint; replaced if it exists.
      state: the pytree. PRNG keys, None and scalars are allowed.
    """
    ocp.save(Path(path).absolute(), _without_keys(state), overwrite=True)


def check_leaves(path: Path, saved: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises unless a checkpoint holds arrays of the same paths and shapes.

    Args:
      path: of the checkpoint.
      saved: shapes by path.
      expected: arrays by path.

    Raises:
      ValueError: naming the first difference.
    """
    for name, leaf in expected.items():
        if name not in saved or tuple(saved[name]) != jnp.shape(leaf):
            raise ValueError(
                f"checkpoint {path}: expected shape {jnp.shape(leaf)} at '{name}', "
                f"got {tuple(saved[name]) if name in saved else 'nothing'}."
            )
    if surplus := sorted(saved.keys() - expected.keys()):
        raise ValueError(
            f"checkpoint {path}: expected nothing at {surplus}, "
            "the checkpoint of another model or optimizer."
        )


def _abstract(plain: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            jnp.shape(leaf), leaf.dtype, sharding=getattr(leaf, "sharding", None)
        ),
        jax.tree.map(jnp.asarray, plain),
    )


def _with_keys(like: Any, restored: Any) -> Any:
    return jax.tree.map(
        lambda leaf, value: (
            jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf))
            if _is_key(leaf)
            else value
        ),
        like,
        restored,
    )


def restore(path: str | Path, like: Any) -> Any:
    """Restores what `save` saved.

    Args:
      path: the folder of the checkpoint.
      like: a pytree of the same structure, shapes and dtypes, for example a newly
        created state; its values are not used. Arrays land where its leaves lie.

    Returns:
      A pytree like `like` with the saved values.

    Raises:
      FileNotFoundError: if there is no checkpoint at `path`.
      ValueError: if the checkpoint holds another structure or other shapes.
    """
    path = Path(path).absolute()
    if not exists(path):
        raise FileNotFoundError(f"checkpoint: expected one at {path}, found none.")
    plain = _without_keys(like)
    saved = {name: leaf.shape for name, leaf in _named(ocp.metadata(path).metadata).items()}
    check_leaves(path, saved, _named(plain))
    return _with_keys(like, ocp.load(path, _abstract(plain)))


def exists(path: str | Path) -> bool:
    """Whether `path` holds a finished checkpoint."""
    path = Path(path).absolute()
    return path.is_dir() and ocp.is_orbax_checkpoint(path)


def steps_in(folder: str | Path) -> list[int]:
    """The steps of the complete checkpoints of a series, in order; none without a folder."""
    folder = Path(folder).absolute()
    if not folder.is_dir():
        return []
    names = [entry.name for entry in folder.iterdir() if entry.name.isdigit()]
    return sorted(int(name) for name in names if exists(folder / name))


class Steps:
    """Numbered checkpoints in one folder, with a manifest beside them."""

    def __init__(
        self,
        folder: Path,
        manifest: Mapping[str, Any],
        *,
        keep: int,
        best: tuple[str, str] | None,
    ):
        self.folder = folder
        policies = ocp.training.preservation_policies
        kept = [policies.LatestN(keep)]
        if best is not None:
            name, direction = best
            kept.append(
                policies.BestN(
                    get_metric_fn=lambda metrics: metrics[name],
                    reverse=direction == "min",
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._policy = policies.AnyPreservationPolicy(kept)
        self._writer: ocp.training.Checkpointer | None = None
        self._pending = None
        file = folder / "manifest.json"
        if not file.exists() and jax.process_index() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            aside = file.with_suffix(".new")
            aside.write_text(json.dumps(manifest, indent=2) + "\n")
            aside.replace(file)
        multihost_utils.sync_global_devices("uno_jax manifest")
        self.manifest = json.loads(file.read_text())

    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, in order."""
        return steps_in(self.folder)

    def save(self, step: int, state: Any, beside: Any, metrics: Mapping[str, float] | None) -> None:
        """Begins to write a checkpoint; in place of one of the same number.

        Raises:
          WriteError: if that cannot be done.
        """
        text = json.dumps(beside)
        # As an array: of a tree without any, Orbax warns at every save.
        words = {"text": np.frombuffer(text.encode(), np.uint8), "digest": _digest(text)}
        with _raising(WriteError):
            if self._writer is None:
                self._writer = ocp.training.Checkpointer(
                    self.folder, preservation_policy=self._policy, cleanup_tmp_directories=True
                )
            self._pending = self._writer.save_checkpointables_async(
                step,
                {"state": _without_keys(state), "beside": words},
                force=True,
                overwrite=True,
                metrics=dict(metrics) if metrics else None,
            )

    def wait(self) -> None:
        """Waits for what is being written.

        Raises:
          WriteError: if it could not be.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            with _raising(WriteError):
                pending.result()

    def beside(self, step: int) -> Any:
        """Reads what was saved beside a state.

        Raises:
          DamagedError: if it cannot be read.
        """
        with _raising(DamagedError):
            loaded = ocp.load_checkpointables(self.folder / str(step), {"beside": None})["beside"]
            text = np.asarray(loaded["text"]).tobytes().decode(errors="replace")
            if loaded["digest"] != _digest(text):
                raise ValueError("what lies beside the state is not what was saved")
            return json.loads(text)

    def restore(self, step: int, like: Any) -> Any:
        """Reads a state.

        Raises:
          DamagedError: if it cannot be read.
        """
        with _raising(DamagedError):
            abstract = {"state": _abstract(_without_keys(like))}
            loaded = ocp.load_checkpointables(self.folder / str(step), abstract)
            return _with_keys(like, loaded["state"])

    def put_aside(self, step: int) -> Path:
        """Renames a damaged checkpoint, so that it is no longer one of the series."""
        aside = self.folder / f"damaged-{step}"
        if jax.process_index() == 0:
            number = 1
            while aside.exists():
                number += 1
                aside = self.folder / f"damaged-{step}-{number}"
            (self.folder / str(step)).rename(aside)
        multihost_utils.sync_global_devices("uno_jax damaged")
        return aside

    def close(self, *, wait: bool) -> None:
        """Ends the writer; an error in what it still wrote is raised only if waited for."""
        try:
            self.wait()
        except WriteError:
            if wait:
                raise
        finally:
            if self._writer is not None:
                with contextlib.suppress(Exception):
                    self._writer.close()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def _raising(kind: type[Exception]) -> Iterator[None]:
    # Orbax and TensorStore report a full disk, or a damaged file, as any of several errors.
    try:
        yield
    except Exception as error:
        raise kind(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
