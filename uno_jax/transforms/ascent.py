"""Use the forget gradient itself: ascend it, add it, ascend what retaining allows."""

import jax
import jax.numpy as jnp
import optax

from uno_jax import trees


def _init(params):
    del params
    return optax.EmptyState()


def _reference(forget_grads, updates):
    return trees.aligned(forget_grads, updates, tree_name="forget_grads", reference_name="updates")


def ascend() -> optax.GradientTransformationExtraArgs:
    r"""Replaces the updates by the ascent of the forget loss (A).

    .. math:: u \mapsto -g_f

    Nothing holds the model back: it forgets everything. It is here as the published
    baseline and as a part of `alternate`. Cost per step: one forget gradient.

    Returns:
      An Optax transformation whose `update(updates, state, params, *, forget_grads,
      **extra_args)` returns a tree in the dtypes of `updates`. None leaves and masked
      nodes are passed over.

    Raises:
      ValueError: in `update`, if `forget_grads` does not match the updates.

    Examples:
      >>> import jax.numpy as jnp
      >>> import uno_jax as uno
      >>> tx = uno.ascend()
      >>> params = jnp.zeros(2)
      >>> tx.update(params, tx.init(params), params, forget_grads=jnp.array([1.0, 2.0]))[0]
      Array([-1., -2.], dtype=float32)

    References:
      Mandal and Gottwald, UNO, arXiv 2506.04712 (A, gradient ascent).
    """

    def update_fn(updates, state, params=None, *, forget_grads, **extra_args):
        del params, extra_args
        negative = jax.tree.map(jnp.negative, _reference(forget_grads, updates))
        return trees.cast_like(negative, updates), state

    return optax.GradientTransformationExtraArgs(_init, update_fn)


def add_forget(scale: float = -1.0) -> optax.GradientTransformationExtraArgs:
    r"""Adds a multiple of the forget gradient to the updates.

    .. math:: u \mapsto u + s\, g_f

    With the retain gradient coming in and :math:`s = -1` both losses are followed at
    once, descending one and ascending the other; with :math:`s > 0` and a forget loss
    of its own (noise as target, another label) both are descended. Cost per step: one
    retain and one forget gradient.

    Args:
      scale: :math:`s`, of either sign.

    Returns:
      An Optax transformation whose `update(updates, state, params, *, forget_grads,
      **extra_args)` sums in float32 and keeps the dtypes of `updates`. None leaves and
      masked nodes are passed over.

    Raises:
      ValueError: in `update`, if `forget_grads` does not match the updates.

    Examples:
      >>> import jax.numpy as jnp
      >>> import uno_jax as uno
      >>> tx = uno.transforms.add_forget(-0.5)
      >>> grads = jnp.array([1.0, 1.0])
      >>> tx.update(grads, tx.init(grads), grads, forget_grads=jnp.array([2.0, 0.0]))[0]
      Array([0., 1.], dtype=float32)

    References:
      Kurmanji et al., Towards Unbounded Machine Unlearning, arXiv 2302.09880 (NegGrad+).
    """

    def update_fn(updates, state, params=None, *, forget_grads, **extra_args):
        del params, extra_args
        return trees.add_scaled(updates, scale, _reference(forget_grads, updates)), state

    return optax.GradientTransformationExtraArgs(_init, update_fn)


def ascend_orthogonally(strength: float = 1.0) -> optax.GradientTransformationExtraArgs:
    r"""Descends the retain loss and ascends what is orthogonal to it, at one length.

    .. math:: g_r \mapsto g_r - \beta\, |g_r|\, \hat g_f^\perp, \quad
      g_f^\perp = g_f - \frac{g_f \cdot g_r}{|g_r|^2}\, g_r

    with the hat for the unit vector: the ascent is scaled to the retain gradient, so
    that neither swamps the other. Cost per step: one retain and one forget gradient.

    Args:
      strength: :math:`\beta \ge 0`.

    Returns:
      An Optax transformation whose `update(updates, state, params, *, forget_grads,
      **extra_args)` takes the retain gradient as `updates`. A zero gradient, or two
      parallel ones, leave the updates unchanged up to their eps.

    Raises:
      ValueError: for a negative `strength`; in `update`, if `forget_grads` does not
        match the updates.

    Examples:
      >>> import jax.numpy as jnp
      >>> import uno_jax as uno
      >>> tx = uno.transforms.ascend_orthogonally(0.5)
      >>> grads = jnp.array([2.0, 0.0])
      >>> tx.update(grads, tx.init(grads), grads, forget_grads=jnp.array([3.0, 4.0]))[0]
      Array([ 2., -1.], dtype=float32)
    """
    if not strength >= 0:
        raise ValueError(f"strength: expected a number of at least 0, got {strength}.")

    def update_fn(updates, state, params=None, *, forget_grads, **extra_args):
        del params, extra_args
        retain, retain_norm = trees.direction(updates)
        # Unit vectors first: the difference of near-parallel gradients is then compared
        # with 1, and what is only rounding can be told from a direction.
        forget, _ = trees.direction(_reference(forget_grads, updates))
        across = trees.add_scaled(forget, -trees.dot(forget, retain), retain)
        unit, length = trees.direction(across)
        scale = jnp.where(length > 1e-6, -strength * retain_norm, 0.0)
        return trees.add_scaled(updates, scale, unit), state

    return optax.GradientTransformationExtraArgs(_init, update_fn)
