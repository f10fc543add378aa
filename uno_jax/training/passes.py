"""One loss, its value and gradient: over micro-batches, and over devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from uno_jax import trees

REDUCTIONS = ("mean", "sum")


class Pass(NamedTuple):
    """What a loss says of a batch.

    Attributes:
      loss: scalar.
      grads: its gradient.
      grad_fn: from parameters, also masked ones, to the gradient at this batch and noise.
      model_state: what the loss carried along.
    """

    loss: jax.Array
    grads: Any
    grad_fn: Callable
    model_state: Any


def make_pass(
    loss_fn: Callable,
    *,
    has_model_state: bool,
    axis_name: str | None = None,
    reduction: str = "mean",
    accumulate: int = 1,
) -> Callable:
    """Returns a function from (params, model_state, batch, key) to a `Pass`.

    Everything in it is of the global batch, the gradient function too: products of a Hessian
    with a vector are then accumulated and averaged as the gradients are.

    Args:
      loss_fn: see `make_unlearning_step`.
      has_model_state: whether the loss carries a model state along.
      axis_name: a mapped axis over which to join losses and gradients.
      reduction: how the loss reduces its batch, and so how parts of a batch are joined.
      accumulate: micro-batches that a batch is taken in, one after the other.

    Raises:
      ValueError: for an unknown reduction or fewer than one micro-batch; in the function, if
        a batch cannot be divided.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: expected one of {REDUCTIONS}, got {reduction!r}.")
    if accumulate < 1:
        raise ValueError(f"accumulate: expected at least 1 micro-batch, got {accumulate}.")

    def over_devices(tree):
        if axis_name is None:
            return tree
        return (jax.lax.pmean if reduction == "mean" else jax.lax.psum)(tree, axis_name)

    def value(params, model_state, batch, key):
        if has_model_state:
            return loss_fn(params, model_state, batch, key)
        return loss_fn(params, batch, key), model_state

    # Traced once for both batches, and differentiated once for the products on both.
    whole = jax.jit(jax.value_and_grad(value, has_aux=True))

    def in_parts(params, model_state, batch, key):
        def add(carry, part):
            loss, grads, model_state = carry
            number, batch = part
            (more, model_state), slope = whole(
                params, model_state, batch, jax.random.fold_in(key, number)
            )
            grads = jax.tree.map(lambda total, g: total + g.astype(total.dtype), grads, slope)
            return (loss + more.astype(loss.dtype), grads, model_state), None

        zeros = jax.tree.map(jnp.zeros_like, trees.widen(params))
        start = jnp.zeros((), jnp.float32), zeros, model_state
        parts = jnp.arange(accumulate), micro_batches(batch, accumulate)
        (loss, grads, model_state), _ = jax.lax.scan(add, start, parts)
        if reduction == "mean":
            loss, grads = jax.tree.map(lambda x: x / accumulate, (loss, grads))
        return (loss, model_state), trees.cast_like(grads, params)

    value_and_grad = whole if accumulate == 1 else in_parts

    def run(params, model_state, batch, key):
        if axis_name is not None:
            # Each device has other examples, and so noise of its own.
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))

        (loss, new_model_state), grads = value_and_grad(params, model_state, batch, key)
        loss, grads = over_devices(loss), over_devices(grads)
        if axis_name is not None:
            new_model_state = jax.lax.pmean(new_model_state, axis_name)

        def grad_fn(p):
            if all(a is b for a, b in zip(*map(jax.tree.leaves, (p, params)), strict=True)):
                return grads
            return over_devices(value_and_grad(p, model_state, batch, key)[1])

        return Pass(loss, grads, trees.accept_masked(grad_fn, params), new_model_state)

    return run


def micro_batches(batch: Any, count: int) -> Any:
    """Splits a batch into every `count`-th example: (count, B / count, ...).

    A batch that is spread over devices then stays so, each with its part of all of them.

    Raises:
      ValueError: if an array has no examples or a number that cannot be divided.
    """

    def leaf(x):
        length = jnp.shape(x)[0] if jnp.ndim(x) else 0
        if not length or length % count:
            raise ValueError(
                f"accumulate: expected a number of examples that {count} divides, got {length}."
            )
        return x.reshape(length // count, count, *x.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(leaf, batch)
