"""The state of a training or unlearning run, as one pytree."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a step reads and writes.

    Attributes:
      step: int32 scalar, steps made so far.
      params: pytree of trainable parameters.
      model_state: pytree the loss carries along, such as batch statistics;
        `None` for a loss without any.
      opt_state: state of the Optax transformation.
      key: one PRNG key for the whole run. A step derives its own by folding in
        `step`, so that a resumed run draws the noise it would have drawn.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    key: jax.Array

    def replace(self, **changes) -> "TrainState":
        """Returns a copy with some fields replaced."""
        return dataclasses.replace(self, **changes)


def create_state(
    params: Any,
    tx: optax.GradientTransformation,
    key: jax.Array,
    *,
    model_state: Any = None,
) -> TrainState:
    """Builds the state in which a run starts.

    Args:
      params: pytree of trainable parameters.
      tx: the transformation whose state is initialised.
      key: a PRNG key, typed (`jax.random.key`) or not.
      model_state: what the loss carries along, such as batch statistics.

    Returns:
      A `TrainState` at step 0. It shares `params` and `model_state` with the
      caller: a step that donates its state invalidates those, see `copy_state`.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> import uno_jax as uno
      >>> state = uno.create_state({"w": jnp.ones(2)}, optax.adam(1e-3), jax.random.key(0))
      >>> int(state.step)
      0
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=tx.init(params),
        key=key,
    )


def copy_state(state: TrainState) -> TrainState:
    """Returns a state with buffers of its own, safe to donate."""
    return jax.tree.map(jnp.copy, state)
