"""PyTorch state dicts to Flax variables and back, by an explicit table of names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from uno_jax._extras import require


class Entry(NamedTuple):
    """Where one array of a PyTorch state dict goes.

    Attributes:
      torch_name: key in the state dict.
      collection: Flax collection, `"params"` or `"batch_stats"`.
      path: keys inside the collection.
      transpose: whether a (out, in) matrix becomes (in, out).
    """

    torch_name: str
    collection: str
    path: tuple[str, ...]
    transpose: bool = False


def linear(torch_name: str, path: tuple[str, ...]) -> tuple[Entry, ...]:
    """Entries of a PyTorch `Linear` that becomes a Flax `Dense`."""
    return (
        Entry(f"{torch_name}.weight", "params", (*path, "kernel"), transpose=True),
        Entry(f"{torch_name}.bias", "params", (*path, "bias")),
    )


def batch_norm(torch_name: str, path: tuple[str, ...]) -> tuple[Entry, ...]:
    """Entries of a PyTorch `BatchNorm` that becomes a Flax `BatchNorm`."""
    return (
        Entry(f"{torch_name}.weight", "params", (*path, "scale")),
        Entry(f"{torch_name}.bias", "params", (*path, "bias")),
        Entry(f"{torch_name}.running_mean", "batch_stats", (*path, "mean")),
        Entry(f"{torch_name}.running_var", "batch_stats", (*path, "var")),
    )


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Reads named arrays from an npz or safetensors file.

    Args:
      path: a file ending in `.npz` or `.safetensors`. Pickles are refused: they
        run code when read.

    Returns:
      The arrays by name.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: for another kind of file, saying how to convert it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights: expected a file at {path}, found none.")
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    if path.suffix == ".safetensors":
        return require("safetensors.numpy", "experiments").load_file(path)
    raise ValueError(
        f"weights: expected .npz or .safetensors, got {path.name!r}. Pickled weights are "
        "not read; save the state dict with safetensors where it was trained."
    )


def from_torch(
    arrays: Mapping[str, np.ndarray],
    entries: Sequence[Entry],
    ignore: Sequence[str] = ("num_batches_tracked",),
) -> dict[str, Any]:
    """Builds Flax variables from a PyTorch state dict.

    Args:
      arrays: the state dict, PyTorch names and layouts.
      entries: where each array goes.
      ignore: endings of names that have no counterpart and are passed over.

    Returns:
      A nested dict by collection (`params`, `batch_stats`), float arrays in the
      dtype they came in.

    Raises:
      ValueError: if an array is missing or one is left over, naming them.
    """
    wanted = {entry.torch_name for entry in entries}
    present = {name for name in arrays if not name.endswith(tuple(ignore))}
    if wanted != present:
        raise ValueError(
            f"weights: missing {sorted(wanted - present)}, not expected {sorted(present - wanted)}."
        )
    variables: dict[str, Any] = {}
    for entry in entries:
        array = np.asarray(arrays[entry.torch_name])
        node = variables.setdefault(entry.collection, {})
        for key in entry.path[:-1]:
            node = node.setdefault(key, {})
        node[entry.path[-1]] = array.T if entry.transpose else array
    return variables


def to_torch(variables: Mapping[str, Any], entries: Sequence[Entry]) -> dict[str, np.ndarray]:
    """Inverse of `from_torch`, for every entry whose collection is present.

    Args:
      variables: nested dict by collection; any tree of the parameters' structure
        will do, for example `{"params": gradient}`.
      entries: where each array goes.

    Returns:
      Arrays by PyTorch name, in the order of `entries` and in PyTorch layouts.
    """
    arrays = {}
    for entry in entries:
        if entry.collection not in variables:
            continue
        node = variables[entry.collection]
        for key in entry.path:
            node = node[key]
        array = np.asarray(node)
        arrays[entry.torch_name] = array.T if entry.transpose else array
    return arrays
