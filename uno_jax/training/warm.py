"""Start Adam warm: with the second moment that training would have left it."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import optax

from uno_jax import trees


def second_moment(
    loss_fn: Callable,
    params: Any,
    batches: Iterable,
    key: jax.Array,
    *,
    count: int = 50,
    model_state: Any = None,
    has_model_state: bool = False,
) -> Any:
    r"""Mean square of the retain gradient over some batches.

    .. math:: v = \frac1K \sum_{k=1}^K g_k \odot g_k

    What Adam's second moment converges to at a trained model, and the diagonal of the
    retained data's empirical Fisher matrix up to the batch size.

    Args:
      loss_fn: `loss_fn(params, batch, key) -> scalar`; with `has_model_state`,
        `loss_fn(params, model_state, batch, key) -> (scalar, model_state)`.
      params: where the gradients are taken.
      batches: iterable of at least `count` retain batches, all of one shape.
      key: PRNG key; batch k uses `fold_in(key, k)`.
      count: :math:`K`, at least 1.
      model_state: what the loss carries along; it does not move here.
      has_model_state: whether the loss takes a model state.

    Returns:
      A pytree like `params`, float32, at least 0.

    Raises:
      ValueError: if there are fewer than `count` batches, or `count` is below 1.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> import uno_jax as uno
      >>> loss_fn = lambda params, batch, key: jnp.sum(params * batch)
      >>> batches = [jnp.array([1.0, 2.0]), jnp.array([3.0, 0.0])]
      >>> uno.training.second_moment(loss_fn, jnp.zeros(2), batches, jax.random.key(0), count=2)
      Array([5., 2.], dtype=float32)
    """
    if count < 1:
        raise ValueError(f"count: expected at least 1, got {count}.")

    def value(p, carried, batch, batch_key):
        if has_model_state:
            return loss_fn(p, carried, batch, batch_key)[0]
        return loss_fn(p, batch, batch_key)

    # Parameters come as arguments: closed over, they would be constants of the program.
    @jax.jit
    def add(total, p, carried, batch, batch_key):
        grads = trees.widen(jax.grad(value)(p, carried, batch, batch_key))
        return jax.tree.map(lambda t, g: t + g * g / count, total, grads)

    total = jax.tree.map(jnp.zeros_like, trees.widen(params))
    done = 0
    for batch in islice(batches, count):
        total = add(total, params, model_state, batch, jax.random.fold_in(key, done))
        done += 1
    if done < count:
        raise ValueError(f"batches: expected at least {count}, got {done}.")
    return total


def warm_adam(opt_state: Any, second_moment: Any, *, steps: int = 100_000) -> Any:
    r"""Gives a fresh Adam state the second moment of a trained model.

    At a converged model the retain gradient is noise, and a cold Adam, whose second
    moment is that of the last few gradients alone, turns it into a step of the whole
    learning rate on every weight. With the second moment given, and its bias correction
    over, the first step is in proportion to the gradient:

    .. math:: \Delta\theta = -\eta\, \frac{(1 - \beta_1)\, g}{\sqrt{v} + \epsilon}

    Args:
      opt_state: a state with one Adam in it, from `tx.init(params)`; `optax.adamw` and
        whatever else keeps `mu`, `nu` and `count` will do.
      second_moment: pytree like the parameters: from `uno.training.second_moment`, or from a
        training checkpoint, `optax.tree.get(checkpoint.opt_state, "nu")`.
      steps: the updates that the state pretends to have seen, so many that the bias
        corrections are 1.

    Returns:
      The state with `nu` and `count` replaced; `mu` and everything else as they were.

    Raises:
      ValueError: if there is not exactly one `nu`, or it does not match.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> import uno_jax as uno
      >>> tx, params = optax.adam(0.1), jnp.zeros(2)
      >>> state = uno.training.warm_adam(tx.init(params), jnp.array([1.0, 4.0]))
      >>> tx.update(jnp.array([1.0, 1.0]), state, params)[0].round(4)
      Array([-0.01 , -0.005], dtype=float32)
    """
    adam = [leaf for leaf in jax.tree.leaves(opt_state, is_leaf=_is_adam) if _is_adam(leaf)]
    if len(adam) != 1:
        raise ValueError(
            f"opt_state: expected exactly one Adam (count, mu and nu) in it, found {len(adam)}."
        )
    moment = trees.aligned(
        second_moment, adam[0].nu, tree_name="second_moment", reference_name="the state's nu"
    )
    warm = adam[0]._replace(
        count=jnp.full_like(adam[0].count, steps), nu=trees.cast_like(moment, adam[0].nu)
    )
    return jax.tree.map(lambda leaf: warm if _is_adam(leaf) else leaf, opt_state, is_leaf=_is_adam)


def _is_adam(node: Any) -> bool:
    return isinstance(node, optax.ScaleByAdamState)
