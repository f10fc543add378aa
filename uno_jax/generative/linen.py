"""Flax Linen modules as parameters and pure functions."""

from collections.abc import Mapping
from typing import Any

import jax

from uno_jax._extras import require
from uno_jax.generative import bound as bounds


def from_linen(module: Any, variables: Mapping[str, Any]) -> bounds.Bound:
    """Makes parameters and pure functions of a Flax Linen module and its variables.

    A method runs as `module.apply` does, with the other collections, such as batch
    statistics, as they were and immutable. `rngs` and the method's own arguments are passed
    on. Boxes around parameters, as of `nn.with_partitioning`, are taken off in `params` and
    put on again in a call and in `restore`.

    Args:
      module: the module, not bound.
      variables: what `module.init` returned or training made of it, with `"params"` in it; a
        dict or a FrozenDict.

    Returns:
      A `Bound`. `restore` gives variables, of the same container type.

    Raises:
      ValueError: if the module is no Linen module, is bound or is a method of one; if
        `variables` has no `"params"`; if a parameter is complex or none is floating-point.
      ImportError: if flax is not installed.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from flax import linen as nn
      >>> from uno_jax.generative.linen import from_linen
      >>> class Decoder(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, z, train: bool):
      ...         return nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(z))
      >>> module = Decoder()
      >>> variables = module.init(jax.random.key(0), jnp.ones((1, 2)), train=False)
      >>> bound = from_linen(module, variables)
      >>> bound.method()(bound.params, jnp.ones((5, 2))).shape
      (5, 4)
      >>> sorted(bound.restore(bound.params))
      ['batch_stats', 'params']
    """
    nn = require("flax.linen", "experiments")
    bounds.check_module(module, nn.Module, "from_linen")
    if module.scope is not None:
        raise ValueError(
            "from_linen: expected a module that is not bound, got one with variables in it; "
            "give from_linen(*module.unbind())."
        )
    if not isinstance(variables, Mapping) or not isinstance(variables.get("params"), Mapping):
        got = list(variables) if isinstance(variables, Mapping) else type(variables).__name__
        raise ValueError(
            "from_linen: expected the variables that module.init returns, with 'params' in "
            f"them, got {got}; bare parameters go in as {{'params': params}}."
        )
    # The user's dicts may change later; the copy has containers of its own.
    variables = jax.tree.map(lambda leaf: leaf, variables)
    boxed = variables["params"]
    params, frozen = bounds.split_floats(nn.meta.unbox(boxed), "from_linen")
    bounds.check_any(params, module, "from_linen", "give the variables of the whole model.")

    def rebuild(params):
        whole = nn.meta.replace_boxed(boxed, bounds.join_floats(params, frozen))
        others = jax.tree.map(lambda leaf: leaf, variables)
        if isinstance(others, dict):
            return {**others, "params": whole}
        return others.copy({"params": whole})

    def call(name, params, args, kwargs):
        return module.apply(rebuild(params), *args, method=name, mutable=False, **kwargs)

    return bounds.Bound(params, module, nn.Module, rebuild, call)
