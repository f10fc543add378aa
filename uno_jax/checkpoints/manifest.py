"""What a series of checkpoints belongs to: versions, configuration, data."""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from typing import Any

import numpy as np

from uno_jax._version import __version__

SCHEMA = 1
PACKAGES = ("jax", "optax", "orbax-checkpoint")


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """A short hash of named arrays: names, shapes, dtypes and every byte.

    Args:
      arrays: for example images, labels and the mask of what is to be forgotten.

    Returns:
      16 hexadecimal digits.

    Examples:
      >>> import numpy as np
      >>> from uno_jax import checkpoints
      >>> checkpoints.fingerprint({"labels": np.arange(3, dtype=np.int32)})
      '8522e176ae9ed39e'
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.shape} {array.dtype.str}\n".encode())
        digest.update(array.data.cast("B") if array.size else b"")
    return digest.hexdigest()[:16]


def make_manifest(configuration: Mapping[str, Any], data: str) -> dict[str, Any]:
    """Says what checkpoints belong to.

    Args:
      configuration: what decides the run, JSON values by name.
      data: a fingerprint of the data.

    Returns:
      A JSON object with the versions of the libraries beside these.
    """
    return {
        "schema": SCHEMA,
        "configuration": dict(configuration),
        "data": data,
        # Its own not from the metadata: a checkout need not be installed.
        "versions": {
            "uno_jax": __version__,
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
    }


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What differs between two manifests.

    Returns:
      What forbids to go on, and what need only be said: other versions.
    """
    if saved.get("schema") != SCHEMA:
        return [f"schema: expected {SCHEMA}, got {saved.get('schema')!r}"], []
    fatal = []
    if saved["data"] != now["data"]:
        fatal.append(f"data: expected those of fingerprint {saved['data']}, got {now['data']}")
    fatal += _unequal("", saved["configuration"], now["configuration"])
    return fatal, _unequal("version of ", saved["versions"], now["versions"])


def _unequal(prefix, saved, now):
    return [
        f"{prefix}{key}: expected {saved.get(key)!r}, got {now.get(key)!r}"
        for key in sorted(saved.keys() | now.keys())
        if saved.get(key) != now.get(key)
    ]
