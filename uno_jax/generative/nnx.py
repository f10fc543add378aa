"""Flax NNX modules as parameters and pure functions."""

from typing import Any

from uno_jax._extras import require
from uno_jax.generative import bound as bounds


def from_nnx(module: Any) -> bounds.Bound:
    """Makes parameters and pure functions of a Flax NNX module.

    The parameters are the values of its `nnx.Param` variables, subclasses such as
    `nnx.LoRAParam` included, in nested dicts: `params["layers"][0]["kernel"]`. A variable that
    stands in two places of the module is there once, at the first. A method runs on a copy
    of the module in evaluation mode, as after `module.eval()`; random state starts each call as
    it was when bound, so that a call that samples draws the same numbers each time.

    Args:
      module: the module, in any mode.

    Returns:
      A `Bound`. `restore` gives a new module, in the modes in which this one was.

    Raises:
      ValueError: if the module is no NNX module, if a parameter is complex or if none is
        floating-point.
      ImportError: if flax is not installed.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from uno_jax.generative.nnx import from_nnx
      >>> rngs = nnx.Rngs(0)
      >>> module = nnx.Sequential(nnx.Linear(2, 3, rngs=rngs), nnx.Dropout(0.5, rngs=rngs))
      >>> bound = from_nnx(module)
      >>> bound.params["layers"][0]["bias"]
      Array([0., 0., 0.], dtype=float32)
      >>> bound.method()(bound.params, jnp.ones((5, 2))).shape
      (5, 3)
      >>> bound.restore(bound.params).layers[1].deterministic
      False
    """
    nnx = require("flax.nnx", "experiments")
    traverse_util = require("flax.traverse_util", "experiments")
    bounds.check_module(module, nnx.Module, "from_nnx")
    graph, state = nnx.split(module)
    # Split hands out the module's own variables, which training changes in place.
    variables = {
        path: leaf.copy() if isinstance(leaf, nnx.Variable) else leaf
        for path, leaf in nnx.to_flat_state(state)
    }
    values = {
        path: nnx.as_pure(leaf) for path, leaf in variables.items() if isinstance(leaf, nnx.Param)
    }
    params, frozen = bounds.split_floats(traverse_util.unflatten_dict(values), "from_nnx")
    bounds.check_any(params, module, "from_nnx", "only nnx.Param and its subclasses are trained.")

    def rebuild(params):
        whole = bounds.join_floats(params, frozen)

        def at(path):
            value = whole
            for key in path:
                value = value[key]
            return value

        flat = {
            path: leaf.replace(at(path)) if path in values else leaf
            for path, leaf in variables.items()
        }
        return nnx.merge(graph, nnx.from_flat_state(flat), copy=True)

    def call(name, params, args, kwargs):
        model = rebuild(params)
        model.eval()
        return getattr(model, name)(*args, **kwargs)

    original = nnx.merge(graph, nnx.from_flat_state(variables), copy=True)
    return bounds.Bound(params, original, nnx.Module, rebuild, call)
