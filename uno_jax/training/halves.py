"""The two halves of an unlearning step: the gradients, which all methods share, and the update."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from uno_jax import trees
from uno_jax.training.passes import make_pass
from uno_jax.training.state import TrainState
from uno_jax.transforms.alternation import AlternateState
from uno_jax.transforms.orthogonalize import OrthogonalizeState

DESCEND = ("retain", "forget")
MODEL_STATE_FROM = ("both", "retain", "forget", "none")


class Gradients(NamedTuple):
    """What both batches say of a state.

    Attributes:
      retain_loss: scalar.
      retain_grads: its gradient, a tree like the parameters.
      forget_loss: scalar.
      forget_grads: its gradient.
      model_state: after the passes, see `model_state_from` of `make_unlearning_step`.
    """

    retain_loss: jax.Array
    retain_grads: Any
    forget_loss: jax.Array
    forget_grads: Any
    model_state: Any


def step_metrics(retain_loss, retain_grads, forget_loss, forget_grads) -> dict[str, jax.Array]:
    """Returns what every unlearning step reports, under its fixed names."""
    retain_unit, retain_norm = trees.direction(retain_grads)
    forget_unit, forget_norm = trees.direction(forget_grads)
    return {
        "retain_loss": retain_loss,
        "forget_loss": forget_loss,
        "cosine": trees.dot(retain_unit, forget_unit),
        "retain_norm": retain_norm,
        "forget_norm": forget_norm,
    }


def _penalty_metrics(opt_state: Any) -> dict[str, jax.Array]:
    """What the first `uno.orthogonalize` of a transformation says of its penalty, if there is one.

    Where it takes turns with others in one program, the figures are those of its newest turn;
    in a program of one turn, none are of another's.
    """

    def is_end(node):
        return isinstance(node, (OrthogonalizeState, AlternateState))

    for node in jax.tree.leaves(opt_state, is_leaf=is_end):
        if isinstance(node, OrthogonalizeState):
            return {"penalty_norm": node.penalty_norm, "penalty_ratio": node.penalty_ratio}
        if isinstance(node, AlternateState):
            turn_known = isinstance(node.count, np.integer)
            last = (int(node.count) - 1) % len(node.states) if turn_known else None
            found = _penalty_metrics(node.states if last is None else node.states[last])
            if found:
                return found
    return {}


def make_passes(
    loss_fn: Callable,
    *,
    forget_loss_fn: Callable | None = None,
    has_model_state: bool = False,
    model_state_from: str = "both",
    axis_name: str | None = None,
    reduction: str = "mean",
    accumulate: int = 1,
) -> Callable:
    """Returns a function from (state, retain_batch, forget_batch) to `Gradients` and the two
    gradient functions at these batches, by the names of their extra arguments.
    """  # noqa: D205
    if model_state_from not in MODEL_STATE_FROM:
        raise ValueError(
            f"model_state_from: expected one of {MODEL_STATE_FROM}, got {model_state_from!r}."
        )

    def make(fn):
        return make_pass(
            fn,
            has_model_state=has_model_state,
            axis_name=axis_name,
            reduction=reduction,
            accumulate=accumulate,
        )

    run_retain = make(loss_fn)
    # One loss is one function, and traced once.
    run_forget = make(forget_loss_fn) if forget_loss_fn else run_retain

    def passes(state: TrainState, retain_batch, forget_batch):
        retain_key, forget_key, _ = _keys(state)
        model_state = state.model_state
        retain = run_retain(state.params, model_state, retain_batch, retain_key)
        if model_state_from in ("both", "retain"):
            model_state = retain.model_state
        forget = run_forget(state.params, model_state, forget_batch, forget_key)
        if model_state_from in ("both", "forget"):
            model_state = forget.model_state
        found = Gradients(retain.loss, retain.grads, forget.loss, forget.grads, model_state)
        return found, {"retain_grad_fn": retain.grad_fn, "forget_grad_fn": forget.grad_fn}

    return passes


def make_gradients(loss_fn: Callable, **options: Any) -> Callable:
    """Builds the first half of a step, the same for all methods of a model.

    Programs of several methods on one model differ in what they do with two gradients; the
    gradients themselves are then compiled once::

        gradients = jax.jit(uno.training.make_gradients(loss_fn))
        update = uno.jit_turns(uno.training.make_update(tx))  # of each method

    Args:
      loss_fn: as of `make_unlearning_step`.
      **options: `forget_loss_fn`, `has_model_state`, `model_state_from`, `axis_name`,
        `reduction` and `accumulate`, as of `make_unlearning_step`.

    Returns:
      `gradients(state, retain_batch, forget_batch) -> Gradients`, pure and not jitted. The
      optimizer's state is not read: with `state.replace(opt_state=())` one program serves
      every method.

    Raises:
      ValueError: for an unknown `model_state_from` or `reduction`.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> import uno_jax as uno
      >>> gradients = jax.jit(uno.training.make_gradients(lambda p, batch, key: jnp.sum(p * batch)))
      >>> tx = optax.chain(uno.surgery(), optax.sgd(1.0))
      >>> update = uno.jit_turns(uno.training.make_update(tx))
      >>> state = uno.create_state(jnp.zeros(2), tx, jax.random.key(0))
      >>> batches = jnp.array([1.0, 1.0]), jnp.array([0.0, 2.0])
      >>> state, metrics = update(state, gradients(state.replace(opt_state=()), *batches))
      >>> print(state.params)
      [-1.  0.]
    """
    passes = make_passes(loss_fn, **options)
    return lambda state, retain_batch, forget_batch: passes(state, retain_batch, forget_batch)[0]


def make_update(tx: optax.GradientTransformation, *, descend: str = "retain") -> Callable:
    """Builds the second half of a step: what a method does with the gradients.

    Args:
      tx: an Optax transformation, as of `make_unlearning_step`, that takes no products: UNO's
        need the batches once more, and so the whole step.
      descend: `"retain"` or `"forget"`, the gradient that enters `tx` as updates.

    Returns:
      `update(state, gradients) -> (state, metrics)`, pure and not jitted; with
      `make_gradients` the step of `make_unlearning_step`.

    Raises:
      ValueError: for an unknown `descend`; when traced, if `tx` takes products.

    Examples:
      See `make_gradients`.
    """
    finish = make_finish(tx, descend)

    def absent(params):
        del params
        raise ValueError(
            "make_update: expected a transformation of the gradients alone, got one that takes "
            "products; those need the step of make_unlearning_step."
        )

    functions = {"retain_grad_fn": absent, "forget_grad_fn": absent}
    return lambda state, gradients: finish(state, gradients, functions)


def make_finish(tx: optax.GradientTransformation, descend: str) -> Callable:
    """Returns a function from (state, gradients, gradient functions) to (state, metrics)."""
    if descend not in DESCEND:
        raise ValueError(f"descend: expected one of {DESCEND}, got {descend!r}.")
    tx = optax.with_extra_args_support(tx)

    def finish(state: TrainState, found: Gradients, functions: dict[str, Callable]):
        updates, opt_state = tx.update(
            found.retain_grads if descend == "retain" else found.forget_grads,
            state.opt_state,
            state.params,
            retain_grads=found.retain_grads,
            forget_grads=found.forget_grads,
            **functions,
            model_state=found.model_state,
            key=_keys(state)[2],
        )
        metrics = step_metrics(*found[:4]) | _penalty_metrics(opt_state)
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            model_state=found.model_state,
            opt_state=opt_state,
        )
        return state, metrics

    return finish


def _keys(state: TrainState) -> jax.Array:
    """Of the retain pass, the forget pass, and the method."""
    return jax.random.split(jax.random.fold_in(state.key, state.step), 3)
