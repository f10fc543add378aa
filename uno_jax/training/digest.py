"""A hash of arrays: what a run began with."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uno_jax import trees


def add_array(hasher: Any, name: str, array: Any) -> None:
    """Adds name, shape, dtype and every byte of an array to a hash of `hashlib`."""
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    array = np.asarray(array)
    hasher.update(f"{name} {array.shape} {array.dtype}\n".encode())
    # Not every dtype has a buffer of its own, so the bytes are viewed.
    hasher.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def digest(tree: Any) -> str:
    """Hashes a pytree of arrays: paths, shapes, dtypes and every byte.

    Args:
      tree: any pytree of arrays.

    Returns:
      16 hexadecimal digits.

    Examples:
      >>> import numpy as np
      >>> from uno_jax.training.digest import digest
      >>> digest({"a": np.zeros(2)}) == digest({"a": np.zeros(2)})
      True
      >>> digest({"a": np.zeros(2)}) == digest({"a": np.ones(2)})
      False
    """
    hasher = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        add_array(hasher, trees.path_name(path), leaf)
    return hasher.hexdigest()[:16]
