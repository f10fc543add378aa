"""The same step under `jax.pmap`: a copy of the state on every device."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

PMAP_AXIS = "data"


def pmap_step(step: Callable, *, axis_name: str = PMAP_AXIS) -> Callable:
    """Compiles a step for all local devices; it donates its state.

    Args:
      step: `step(state, *batches) -> (state, metrics)`, built with this `axis_name`, so that
        gradients are averaged before any dot product, and each device draws noise of its own.
      axis_name: the mapped axis.

    Returns:
      `step(state, *batches) -> (state, metrics)` of a replicated state and split batches;
      the metrics are those of the first device, all devices having the same.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> import uno_jax as uno
      >>> from uno_jax import parallel
      >>> tx = optax.sgd(0.25)
      >>> loss_fn = lambda params, batch, key: jnp.mean((params - batch) ** 2)
      >>> step = parallel.pmap_step(uno.make_training_step(loss_fn, tx, axis_name="data"))
      >>> state = uno.create_state(jnp.zeros(()), tx, jax.random.key(0))
      >>> batch = jnp.ones(jax.local_device_count())
      >>> state, metrics = step(parallel.replicate(state), parallel.split(batch))
      >>> print(parallel.unreplicate(state).params)
      0.5
    """
    mapped = jax.pmap(step, axis_name=axis_name, donate_argnums=0)

    def run(state, *batches):
        state, metrics = mapped(state, *batches)
        return state, unreplicate(metrics)

    return run


def replicate(state: Any) -> Any:
    """Returns a state with a leading axis, a copy for each local device."""
    devices = jax.local_devices()
    mesh = Mesh(np.asarray(devices), (PMAP_AXIS,))

    def leaf(x):
        copies = jnp.broadcast_to(jax.device_put(x, devices[0]), (len(devices), *x.shape))
        return jax.device_put(copies, NamedSharding(mesh, PartitionSpec(PMAP_AXIS)))

    return jax.tree.map(leaf, state)


def unreplicate(tree: Any) -> Any:
    """Returns the first device's copy, on that device."""
    first = jax.local_devices()[0]
    return jax.tree.map(lambda x: jax.device_put(x[0], first), tree)


def split(batch: Any) -> Any:
    """Splits a batch along its first axis, a part for each local device.

    Raises:
      ValueError: if the examples cannot be divided among the devices.
    """
    count = jax.local_device_count()

    def leaf(x):
        if len(x) % count:
            raise ValueError(
                f"batch: expected a number of examples that {count} devices can share, "
                f"got {len(x)}."
            )
        return x.reshape(count, len(x) // count, *x.shape[1:])

    return jax.tree.map(leaf, batch)
