"""Where parameters and optimizer state lie on a mesh: by size, or by path."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from uno_jax import trees

Rule = tuple[str, tuple[str | None, ...]]
"""A pattern of paths, and the axis of the mesh for each axis of the array."""

SMALLEST = 2**12
"""Arrays with fewer elements lie on every device."""

DIT_RULES: tuple[Rule, ...] = (
    (r"block_\d+/(qkv|mlp_in)/kernel$", ("fsdp", "model")),
    (r"block_\d+/(qkv|mlp_in)/bias$", ("model",)),
    (r"block_\d+/(projection|mlp_out)/kernel$", ("model", "fsdp")),
    (r"blocks/(qkv|mlp_in)/kernel$", (None, "fsdp", "model")),
    (r"blocks/(qkv|mlp_in)/bias$", (None, "model")),
    (r"blocks/(projection|mlp_out)/kernel$", (None, "model", "fsdp")),
)
"""Attention and perceptrons of a DiT over `model`, as columns and then as rows; of its blocks
apart or stacked. The modulation is left to its size: split over `model` too, with `fsdp` beside,
XLA's partitioner (jax 0.10.2, CPU) gave another loss, without a word."""


def _is_key(value):
    return jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)


def _also_keys(function):
    """Makes a function of an array one of PRNG keys too, which go through as their integers."""

    def on_any(value, *arguments):
        if not _is_key(value):
            return function(value, *arguments)
        integers = function(jax.random.key_data(value), *arguments)
        return jax.random.wrap_key_data(integers, impl=jax.random.key_impl(value))

    return on_any


def _by_size(mesh, shape, smallest):
    """The longest axis that `fsdp` divides; nothing for a small array."""
    parts = mesh.shape.get("fsdp", 1)
    if parts == 1 or np.prod(shape, dtype=np.int64) < smallest:
        return PartitionSpec()
    fitting = [axis for axis, length in enumerate(shape) if length % parts == 0]
    if not fitting:
        return PartitionSpec()
    chosen = max(fitting, key=lambda axis: shape[axis])
    return PartitionSpec(*("fsdp" if axis == chosen else None for axis in range(len(shape))))


def _by_rule(mesh, path, shape, pattern, axes):
    if len(axes) != len(shape):
        raise ValueError(
            f"rule {pattern!r}: expected an entry for each of the {len(shape)} axes of '{path}', "
            f"got {axes}."
        )
    present = [name if name in mesh.axis_names else None for name in axes]
    for name, length in zip(present, shape, strict=True):
        if name and length % mesh.shape[name]:
            raise ValueError(
                f"rule {pattern!r}: expected axes of '{path}', {shape}, that can be divided by "
                f"those of the mesh, {dict(mesh.shape)}, got {axes}."
            )
    return PartitionSpec(*present)


def state_shardings(
    mesh: Mesh, state: Any, rules: Sequence[Rule] = (), *, smallest: int = SMALLEST
) -> Any:
    """Decides where each array of a state lies.

    An array that a rule's pattern is found in the path of lies as that rule says; axes that
    the mesh does not have are passed over. Any other is split over `fsdp`, along its longest
    axis that can be divided, or lies on every device if it is small. Moments and averages in
    the optimizer's state end in the path of their parameter and lie with it.

    Args:
      mesh: the mesh.
      state: a `TrainState`, or any pytree of arrays or of their shapes.
      rules: the first that fits decides; `DIT_RULES` are for a DiT over `model`.
      smallest: elements below which an array is not split by size.

    Returns:
      A pytree like `state` of `NamedSharding`.

    Raises:
      ValueError: if a rule does not fit the array it is for.

    Examples:
      >>> import jax.numpy as jnp
      >>> from uno_jax import parallel
      >>> mesh = parallel.make_mesh({"fsdp": 1}, jax.devices()[:1])
      >>> rules = [("kernel$", (None, "fsdp"))]
      >>> tuple(parallel.state_shardings(mesh, {"kernel": jnp.ones((2, 4))}, rules)["kernel"].spec)
      (None, 'fsdp')
    """

    def leaf(path, value):
        name = trees.path_name(path)
        shape = np.shape(value)
        for pattern, axes in rules:
            if re.search(pattern, name):
                return NamedSharding(mesh, _by_rule(mesh, name, shape, pattern, axes))
        if _is_key(value):
            return NamedSharding(mesh, PartitionSpec())
        return NamedSharding(mesh, _by_size(mesh, shape, smallest))

    return jax.tree_util.tree_map_with_path(leaf, state)


def shard_state(mesh: Mesh, state: Any, rules: Sequence[Rule] = (), **options: Any) -> Any:
    """Puts a state where `state_shardings` says, with buffers of its own, safe to donate.

    Args:
      mesh: the mesh.
      state: a state on one device; of several processes each holds the whole.
      rules: see `state_shardings`.
      **options: of `state_shardings`.

    Returns:
      The same state on the mesh.
    """
    shardings = state_shardings(mesh, state, rules, **options)
    if jax.process_count() == 1:
        return jax.device_put(jax.tree.map(jnp.copy, state), shardings)

    @_also_keys
    def leaf(value, sharding):
        value = np.asarray(value)
        return jax.make_array_from_callback(value.shape, sharding, lambda part: value[part])

    return jax.tree.map(leaf, state, shardings)


def jit_step(step: Callable, shardings: Any, **options: Any) -> Callable:
    """Compiles a step that donates its state and leaves it where it lay.

    Args:
      step: `step(state, *batches) -> (state, metrics)`.
      shardings: of the state, see `state_shardings`.
      **options: of `jax.jit`.

    Returns:
      The jitted step. Metrics are on every device.
    """
    mesh = jax.tree.leaves(shardings)[0].mesh
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, everywhere), **options)


def gather(tree: Any) -> Any:
    """Brings a tree of spread arrays to the first local device of every process."""

    @_also_keys
    def leaf(value):
        if not value.is_fully_addressable:
            sharding = NamedSharding(value.sharding.mesh, PartitionSpec())
            value = jax.jit(lambda x: x, out_shardings=sharding)(value).addressable_data(0)
        return jax.device_put(value, jax.local_devices()[0])

    return jax.tree.map(leaf, tree)
