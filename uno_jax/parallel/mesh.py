"""A mesh of devices by name, and where a batch lies on it."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "model")
"""What an axis splits: batches; batches and parameters; layers, by rules of their own."""
BATCH_AXES = ("data", "fsdp")


def parse_mesh(text: str) -> dict[str, int]:
    """Reads the sizes of a mesh, such as `"data=4,fsdp=2"`.

    Args:
      text: names of axes and their sizes, in any order.

    Returns:
      Sizes by axis, in the order of `AXES`.

    Raises:
      ValueError: for an unknown or repeated axis, or a size below 1.

    Examples:
      >>> from uno_jax import parallel
      >>> parallel.parse_mesh("fsdp=2,data=4")
      {'data': 4, 'fsdp': 2}
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = (piece.strip() for piece in part.partition("="))
        if name not in AXES or name in sizes or not size.isdigit() or int(size) < 1:
            raise ValueError(
                f"mesh: expected sizes of the axes {AXES} such as 'data=4,fsdp=2', got {text!r}."
            )
        sizes[name] = int(size)
    return {name: sizes[name] for name in AXES if name in sizes}


def make_mesh(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Makes a mesh whose axes the compiler may use as it sees fit.

    Args:
      sizes: of the axes, see `parse_mesh`.
      devices: as many as the product of the sizes; all of all processes if `None`.

    Returns:
      A mesh.

    Raises:
      ValueError: if there are more or fewer devices.

    Examples:
      >>> from uno_jax import parallel
      >>> dict(parallel.make_mesh({"data": 1}, jax.devices()[:1]).shape)
      {'data': 1}
    """
    devices = jax.devices() if devices is None else devices
    count = int(np.prod(list(sizes.values())))
    if count != len(devices):
        raise ValueError(f"mesh: expected {count} devices for {dict(sizes)}, got {len(devices)}.")
    return jax.make_mesh(
        tuple(sizes.values()),
        tuple(sizes),
        axis_types=(AxisType.Auto,) * len(sizes),
        devices=devices,
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Everything on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis of an array over `data` and `fsdp`, as far as the mesh has them."""
    axes = tuple(name for name in BATCH_AXES if name in mesh.axis_names)
    return NamedSharding(mesh, PartitionSpec(axes or None))


def shard_batch(mesh: Mesh, batch: Any) -> Any:
    """Spreads a batch over the mesh.

    Args:
      mesh: the mesh.
      batch: pytree of arrays, examples along the first axis. Of several processes each
        gives its own part; parts are of one size.

    Returns:
      The global batch, its first axis over `data` and `fsdp`; scalars are on every device.

    Raises:
      ValueError: if the examples cannot be divided among the devices.
    """
    sharding = batch_sharding(mesh)
    parts = int(np.prod([mesh.shape[name] for name in BATCH_AXES if name in mesh.axis_names]))

    def leaf(array):
        if np.ndim(array) == 0:
            return jax.device_put(array, replicated(mesh))
        total = len(array) * jax.process_count()
        if total % parts:
            raise ValueError(
                f"batch: expected a number of examples that {parts} devices can share, got {total}."
            )
        if jax.process_count() == 1:
            return jax.device_put(array, sharding)
        return jax.make_array_from_process_local_data(sharding, np.asarray(array))

    return jax.tree.map(leaf, batch)
