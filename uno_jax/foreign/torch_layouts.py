"""PyTorch state dicts to Flax variables and back, by an explicit table of names."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from uno_jax._extras import require


class Layout(NamedTuple):
    """How an array is laid out on either side.

    Attributes:
      to_flax: from the PyTorch array to the Flax one.
      to_torch: back.
    """

    to_flax: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda array: array, lambda array: array)
LINEAR = Layout(np.transpose, np.transpose)
"""(out, in) to (in, out)."""
CONVOLUTION = Layout(
    lambda weight: weight.transpose(2, 3, 1, 0), lambda kernel: kernel.transpose(3, 2, 0, 1)
)
"""(out, in, height, width) to (height, width, in, out)."""
TRANSPOSED_CONVOLUTION = Layout(
    lambda weight: weight.transpose(2, 3, 0, 1), lambda kernel: kernel.transpose(2, 3, 0, 1)
)
"""(in, out, height, width) to (height, width, in, out)."""


def from_pixels(channels: int) -> Layout:
    """Layout of a `Linear` over flattened square pictures, (out, C H W) to (H W C, out)."""

    def to_flax(weight):
        side = _side(weight.shape[1], channels)
        pixels = weight.reshape(-1, channels, side, side)
        return pixels.transpose(2, 3, 1, 0).reshape(-1, len(weight))

    def to_torch(kernel):
        side = _side(kernel.shape[0], channels)
        pixels = kernel.reshape(side, side, channels, -1)
        return pixels.transpose(3, 2, 0, 1).reshape(kernel.shape[1], -1)

    return Layout(to_flax, to_torch)


def to_pixels(channels: int) -> Layout:
    """Layout of a `Linear` whose outputs are reshaped to pictures, weight or bias."""

    def to_flax(array):
        side = _side(len(array), channels)
        pixels = np.moveaxis(array.reshape(channels, side, side, -1), 0, 2)
        return pixels.reshape(len(array), -1).T if array.ndim == 2 else pixels.reshape(-1)

    def to_torch(array):
        side = _side(array.shape[-1], channels)
        pixels = np.moveaxis(array.T.reshape(side, side, channels, -1), 2, 0)
        return pixels.reshape(array.shape[-1], -1) if array.ndim == 2 else pixels.reshape(-1)

    return Layout(to_flax, to_torch)


def _side(size: int, channels: int) -> int:
    return math.isqrt(size // channels)


class Entry(NamedTuple):
    """Where one array of a PyTorch state dict goes.

    Attributes:
      torch_name: key in the state dict.
      collection: Flax collection, `"params"` or `"batch_stats"`.
      path: keys inside the collection.
      layout: what is done to it on the way.
    """

    torch_name: str
    collection: str
    path: tuple[str, ...]
    layout: Layout = SAME


def layer(
    torch_name: str,
    path: tuple[str, ...],
    layout: Layout = LINEAR,
    bias: Layout = SAME,
) -> tuple[Entry, ...]:
    """Entries of a weight and a bias: a `Linear` unless another layout is given."""
    return (
        Entry(f"{torch_name}.weight", "params", (*path, "kernel"), layout),
        Entry(f"{torch_name}.bias", "params", (*path, "bias"), bias),
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
        node[entry.path[-1]] = entry.layout.to_flax(array)
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
        arrays[entry.torch_name] = entry.layout.to_torch(np.asarray(node))
    return arrays
