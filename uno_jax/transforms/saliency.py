"""SalUn: move only the parameters that the forget gradient points out."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from uno_jax import trees


def saliency_mask(forget_grads: Any, fraction: float = 0.5) -> Any:
    r"""Marks the parameters of largest forget gradient.

    .. math:: m_i = 1 \text{ if } |g_{f,i}| \ge \gamma, \text{ else } 0

    with the threshold :math:`\gamma` over all leaves together, such that `fraction` of
    all parameters are at least as large. Static shapes, so it can be used inside jit.

    Args:
      forget_grads: pytree of real arrays; None leaves and masked nodes are passed over.
      fraction: of the parameters to mark, in (0, 1].

    Returns:
      A pytree of boolean arrays. At least ceil(fraction · n) of n entries are true,
      more only where several equal the threshold: of a zero gradient all are.

    Raises:
      ValueError: for a fraction out of range.

    Examples:
      >>> import jax.numpy as jnp
      >>> import uno_jax as uno
      >>> tree = {"w": jnp.array([3.0, -1.0]), "b": jnp.array([-2.0, 0.5])}
      >>> uno.transforms.saliency_mask(tree, 0.5)
      {'b': Array([ True, False], dtype=bool), 'w': Array([ True, False], dtype=bool)}

    References:
      Fan et al., SalUn, arXiv 2310.12508, equation 3.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction: expected a number above 0 and up to 1, got {fraction}.")
    sizes = jax.tree.map(jnp.abs, trees.widen(forget_grads))
    leaves = [leaf.ravel() for leaf in jax.tree.leaves(sizes)]
    if not leaves or not sum(leaf.size for leaf in leaves):
        return jax.tree.map(lambda leaf: leaf >= 0, sizes)
    everything = jnp.sort(jnp.concatenate(leaves))
    kept = -int(-fraction * everything.size // 1)  # rounded up
    threshold = everything[everything.size - kept]
    return jax.tree.map(lambda leaf: leaf >= threshold, sizes)


class SaliencyState(NamedTuple):
    """State of `keep_salient`.

    Attributes:
      mask: pytree of booleans like the parameters, all false before the first update.
      chosen: boolean scalar, whether the mask has been taken.
    """

    mask: Any
    chosen: jax.Array


def keep_salient(fraction: float = 0.5) -> optax.GradientTransformationExtraArgs:
    r"""Keeps the updates where the first forget gradient was largest, zero elsewhere.

    .. math:: u \mapsto m \odot u

    The mask is `saliency_mask` of the forget gradient at the first update, that is at
    the original model, and stays. Put it in front of the optimizer: parameters outside
    the mask then never move, also under Adam.

    Args:
      fraction: of the parameters to keep, in (0, 1].

    Returns:
      An Optax transformation whose `update(updates, state, params, *, forget_grads,
      **extra_args)` returns updates in the same dtypes.

    Raises:
      ValueError: for a fraction out of range; in `update`, if `forget_grads` does not
        match the updates.

    Examples:
      >>> import jax.numpy as jnp
      >>> import uno_jax as uno
      >>> tx = uno.transforms.keep_salient(0.5)
      >>> grads = jnp.array([5.0, 7.0])
      >>> tx.update(grads, tx.init(grads), grads, forget_grads=jnp.array([1.0, -2.0]))[0]
      Array([0., 7.], dtype=float32)

    References:
      Fan et al., SalUn, arXiv 2310.12508.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction: expected a number above 0 and up to 1, got {fraction}.")

    def init_fn(params):
        mask = jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), bool), params)
        return SaliencyState(mask, jnp.zeros((), bool))

    def update_fn(updates, state, params=None, *, forget_grads, **extra_args):
        del params, extra_args
        forget_grads = trees.aligned(
            forget_grads, updates, tree_name="forget_grads", reference_name="updates"
        )
        mask = jax.lax.cond(
            state.chosen, lambda: state.mask, lambda: saliency_mask(forget_grads, fraction)
        )
        kept = jax.tree.map(lambda m, u: jnp.where(m, u, jnp.zeros_like(u)), mask, updates)
        return kept, SaliencyState(mask, jnp.ones((), bool))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
