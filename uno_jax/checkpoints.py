"""Save and restore a whole train state with Orbax, atomically."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from uno_jax._extras import require

require("orbax.checkpoint", "experiments")

from orbax.checkpoint import v1 as ocp  # noqa: E402


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _without_keys(tree: Any) -> Any:
    # Typed PRNG keys travel as their integers; the template tells them apart again.
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in leaves}


def save(path: str | Path, state: Any) -> None:
    """Saves a pytree of arrays, typically a `TrainState`.

    The files are written beside `path` and renamed in one step, so that an
    interruption leaves either the old checkpoint or the new one.

    Args:
      path: the folder of this checkpoint; replaced if it exists.
      state: the pytree. PRNG keys, None and scalars are allowed.
    """
    ocp.save(Path(path).absolute(), _without_keys(state), overwrite=True)


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
    saved = {name: tuple(leaf.shape) for name, leaf in _named(ocp.metadata(path).metadata).items()}
    expected = _named(plain)
    for name, leaf in expected.items():
        if saved.get(name) != jnp.shape(leaf):
            raise ValueError(
                f"checkpoint {path}: expected shape {jnp.shape(leaf)} at '{name}', "
                f"got {saved.get(name, 'nothing')}."
            )
    if surplus := sorted(saved.keys() - expected.keys()):
        raise ValueError(
            f"checkpoint {path}: expected nothing at {surplus}, "
            "the checkpoint of another model or optimizer."
        )
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            jnp.shape(leaf), leaf.dtype, sharding=getattr(leaf, "sharding", None)
        ),
        jax.tree.map(jnp.asarray, plain),
    )
    restored = ocp.load(path, abstract)
    return jax.tree.map(
        lambda leaf, value: (
            jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf))
            if _is_key(leaf)
            else value
        ),
        like,
        restored,
    )


def exists(path: str | Path) -> bool:
    """Whether `path` holds a finished checkpoint."""
    path = Path(path).absolute()
    return path.is_dir() and ocp.is_orbax_checkpoint(path)
