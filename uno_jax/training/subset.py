"""Train some of the parameters: nothing exists for the others but their values."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from uno_jax import trees


class Subset(NamedTuple):
    """Parameters in two trees of one structure, each with None in the other's places.

    Attributes:
      trainable: the parameters that move. Give this tree to `create_state`: gradients, dot
        products and optimizer state then exist for them alone.
      frozen: the others.
    """

    trainable: Any
    frozen: Any


def trainable(params: Any, where: str | Callable[[str, Any], bool]) -> Subset:
    """Chooses the parameters to train.

    Args:
      params: pytree of arrays.
      where: a regular expression searched for in a parameter's path, such as
        `"block_[23]/modulation"`, or a predicate `where(path, leaf) -> bool`. Paths join
        the keys by `/`.

    Returns:
      A `Subset`.

    Raises:
      ValueError: if nothing is chosen, naming some paths.

    Examples:
      >>> import jax.numpy as jnp
      >>> import uno_jax as uno
      >>> params = {"body": {"w": jnp.ones(2)}, "head": {"w": jnp.zeros(3)}}
      >>> uno.trainable(params, "^head/").trainable
      {'body': {'w': None}, 'head': {'w': Array([0., 0., 0.], dtype=float32)}}
    """
    pattern = where
    if isinstance(where, str):
        expression = re.compile(where)

        def where(path, leaf):
            return expression.search(path) is not None

    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    names = [trees.path_name(path) for path, _ in leaves]
    chosen = [bool(where(name, leaf)) for name, (_, leaf) in zip(names, leaves, strict=True)]
    if not any(chosen):
        raise ValueError(
            f"trainable: expected {pattern!r} to choose some of {len(names)} parameters, got none; "
            f"there are {names[:3]} ... {names[-3:]}."
        )

    def side(wanted):
        pairs = zip(chosen, leaves, strict=True)
        return jax.tree.unflatten(
            structure, [leaf if c == wanted else None for c, (_, leaf) in pairs]
        )

    return Subset(side(True), side(False))


def join(trainable: Any, frozen: Any) -> Any:
    """Returns the whole tree from the two of a `Subset`, also under jit and grad.

    A leaf that is None in both was None in the parameters, and is again.

    Raises:
      ValueError: if a parameter is in both trees.
    """

    def leaf(a, b):
        if a is not None and b is not None:
            raise ValueError("join: expected each parameter in one of the trees, got it in both.")
        return b if a is None else a

    return jax.tree.map(leaf, trainable, frozen, is_leaf=lambda x: x is None)


def with_frozen(loss_fn: Callable) -> Callable:
    """Makes a loss of all parameters one of the trainable ones, with the rest as model state.

    The frozen parameters travel in `TrainState.model_state`, an argument of the compiled
    step: as constants of a closure they would be part of the program.

    Args:
      loss_fn: `loss_fn(params, batch, key) -> scalar`.

    Returns:
      `loss_fn(trainable, frozen, batch, key) -> (scalar, frozen)`, for steps built with
      `has_model_state=True`; with `model_state_from="none"` where there is that choice.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> import uno_jax as uno
      >>> loss_fn = lambda p, batch, key: jnp.sum((p["a"] * batch - p["b"]) ** 2)
      >>> params, frozen = uno.trainable({"a": jnp.ones(2), "b": jnp.zeros(2)}, "b")
      >>> tx = optax.chain(uno.surgery(), optax.sgd(0.5))
      >>> step = jax.jit(uno.make_unlearning_step(
      ...     uno.training.with_frozen(loss_fn), tx, has_model_state=True, model_state_from="none"))
      >>> state = uno.create_state(params, tx, jax.random.key(0), model_state=frozen)
      >>> state, _ = step(state, jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))
      >>> uno.training.join(state.params, state.model_state)
      {'a': Array([1., 1.], dtype=float32), 'b': Array([1., 0.], dtype=float32)}
    """

    def with_state(params, model_state, batch, key):
        return loss_fn(join(params, model_state), batch, key), model_state

    return with_state
