"""Equinox modules as parameters and pure functions."""

import importlib
from typing import Any

import jax

from uno_jax.generative import bound as bounds


def _require_equinox():
    try:
        return importlib.import_module("equinox")
    except ModuleNotFoundError as error:
        if error.name != "equinox":
            raise
        raise ImportError("equinox is not installed; run: pip install equinox") from error


def from_equinox(module: Any, state: Any = None) -> bounds.Bound:
    """Makes parameters and pure functions of an Equinox module.

    The parameters are the module with its floating-point arrays alone, as
    `eqx.filter(module, eqx.is_inexact_array)` gives it. A method runs in inference mode, as
    after `eqx.nn.inference_mode`, and stays what it was: one written for a single example is
    for `jax.vmap(bound.method(), in_axes=(None, 0))`.

    With a `state`, a method that has a parameter of that name, and whose call leaves it out,
    gets the state as it was when bound. The state that it returns at the end of a tuple is then
    taken off, as evaluation does not advance it: `(out, state)` comes back as `out`,
    `(mean, log_variance, state)` as `(mean, log_variance)`.

    Args:
      module: the module, in any mode.
      state: the `eqx.nn.State` of a module with stateful layers such as `eqx.nn.BatchNorm`.

    Returns:
      A `Bound`. `restore` gives a module, in the modes in which this one was; the state remains
      with the caller.

    Raises:
      ValueError: if the module is no Equinox module or the state no `eqx.nn.State`, if a
        parameter is complex or if none is floating-point.
      ImportError: if equinox is not installed.

    Examples:
      >>> import equinox as eqx
      >>> import jax, jax.numpy as jnp
      >>> from uno_jax.generative.equinox import from_equinox
      >>> module = eqx.nn.MLP(2, 3, width_size=4, depth=1, key=jax.random.key(0))
      >>> bound = from_equinox(module)
      >>> bound.params.layers[0].weight.shape
      (4, 2)
      >>> jax.vmap(bound.method(), in_axes=(None, 0))(bound.params, jnp.ones((5, 2))).shape
      (5, 3)
      >>> bound.restore(bound.params).activation is module.activation
      True
    """
    eqx = _require_equinox()
    if isinstance(module, tuple) and any(isinstance(part, eqx.nn.State) for part in module):
        raise ValueError(
            "from_equinox: expected a module, got it in a tuple with its state; give "
            "from_equinox(module, state)."
        )
    bounds.check_module(module, eqx.Module, "from_equinox")
    if state is not None and not isinstance(state, eqx.nn.State):
        raise ValueError(
            f"from_equinox: expected an eqx.nn.State as state, got {type(state).__name__}; "
            "eqx.nn.make_with_state returns it beside the module."
        )
    # A StateIndex may hold the state's first values, which nobody trains.
    params, frozen = bounds.split_floats(
        module, "from_equinox", is_leaf=lambda node: isinstance(node, eqx.nn.StateIndex)
    )
    bounds.check_any(params, module, "from_equinox", "eqx.is_inexact_array finds no leaf.")
    evaluated = eqx.nn.inference_mode(frozen)
    if state is not None:
        state = _copy(state)

    def call(name, params, args, kwargs):
        method = getattr(bounds.join_floats(params, evaluated), name)
        if state is None or "state" not in bounds.left_out(module, name, args, kwargs):
            return method(*args, **kwargs)
        out = method(*args, state=_copy(state), **kwargs)
        if not (type(out) is tuple and out and isinstance(out[-1], eqx.nn.State)):
            return out
        return out[0] if len(out) == 2 else out[:-1]

    return bounds.Bound(
        params, module, eqx.Module, lambda params: bounds.join_floats(params, frozen), call
    )


def _copy(state):
    """A state of its own: setting a value in a state makes the old one invalid."""
    return jax.tree.map(lambda leaf: leaf, state)
