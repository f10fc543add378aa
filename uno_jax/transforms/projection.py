"""Gradient surgery: remove from an update its component along a reference."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from uno_jax import trees


def _project(updates, reference, reference_name):
    reference = trees.aligned(
        reference, updates, tree_name=reference_name, reference_name="updates"
    )
    unit, _ = trees.direction(reference)
    along = trees.dot(updates, unit)
    norm = trees.direction(updates).norm
    cosine = jnp.where(norm > 0, along / jnp.where(norm > 0, norm, 1.0), 0.0)
    return trees.add_scaled(updates, -along, unit), cosine


def project_out(updates, reference):
    r"""Removes from `updates` its component along `reference`.

    .. math:: u - \frac{u \cdot r}{|r|^2}\, r

    with both trees taken as one vector each. Reduced in float32; the result has
    the dtypes of `updates`, so it is orthogonal to `reference` up to their eps.

    Args:
      updates: pytree of real arrays of any shapes; None leaves and masked nodes
        are passed over.
      reference: pytree of the same structure and shapes.

    Returns:
      A pytree like `updates`. A zero `reference` leaves `updates` unchanged.

    Raises:
      ValueError: if structure or shapes differ, naming the first such path.

    Examples:
      >>> import jax.numpy as jnp
      >>> import uno_jax as uno
      >>> uno.transforms.project_out({"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([0.0, 2.0])})
      {'w': Array([3., 0.], dtype=float32)}

    References:
      Mandal and Gottwald, UNO, arXiv 2506.04712 (gradient surgery).
    """
    return _project(updates, reference, "reference")[0]


class ProjectionState(NamedTuple):
    """What the last projection saw.

    Attributes:
      cosine: float32 scalar in [-1, 1], between the incoming updates and the
        reference, before the projection; 0 if either is zero.
    """

    cosine: jax.Array


def _init(params):
    del params
    return ProjectionState(cosine=jnp.zeros((), jnp.float32))


def _update(updates, reference, reference_name):
    projected, cosine = _project(updates, reference, reference_name)
    return projected, ProjectionState(cosine.astype(jnp.float32))


def orthogonalize_against(retain_grads=None) -> optax.GradientTransformationExtraArgs:
    r"""Removes the component of the updates along the retain gradient.

    .. math:: u \mapsto u - \frac{u \cdot g_r}{|g_r|^2}\, g_r

    A step along the result leaves the retain loss unchanged to first order. Fed
    the forget gradient and followed by `optax.scale(-1.)` it is gradient surgery
    by ascent (SA).

    Args:
      retain_grads: the reference gradient, a pytree with the structure and the
        shapes of the updates. Given here it is fixed, and an argument of that
        name to `update` is ignored; left out, it is the keyword-only argument
        `retain_grads` of `update`.

    Returns:
      An Optax transformation. Its state holds the `cosine` between the incoming
      updates and the reference, readable with `optax.tree.get(state, "cosine")`.
      A zero reference leaves the updates unchanged. Under `optax.masked` the dot
      products run over the unmasked part alone.

    Raises:
      ValueError: in `update`, if the reference does not match the updates.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import uno_jax as uno
      >>> params = {"w": jnp.zeros(2)}
      >>> tx = optax.chain(uno.orthogonalize_against(), optax.scale(-1.0), optax.sgd(0.5))
      >>> state = tx.init(params)
      >>> forget_grads, retain_grads = {"w": jnp.array([1.0, 1.0])}, {"w": jnp.array([0.0, 2.0])}
      >>> updates, state = tx.update(forget_grads, state, params, retain_grads=retain_grads)
      >>> updates["w"] + 0.0
      Array([0.5, 0. ], dtype=float32)

    References:
      Mandal and Gottwald, UNO, arXiv 2506.04712 (surgery by ascent).
    """
    if retain_grads is not None:

        def update_fixed(updates, state, params=None, **extra_args):
            del state, params, extra_args
            return _update(updates, retain_grads, "retain_grads")

        return optax.GradientTransformationExtraArgs(_init, update_fixed)

    def update_fn(updates, state, params=None, *, retain_grads, **extra_args):
        del state, params, extra_args
        return _update(updates, retain_grads, "retain_grads")

    return optax.GradientTransformationExtraArgs(_init, update_fn)


def surgery() -> optax.GradientTransformationExtraArgs:
    r"""Gradient surgery S: the retain gradient without its forget component.

    .. math:: g_r \mapsto g_r - \frac{g_r \cdot g_f}{|g_f|^2}\, g_f

    `orthogonalize_against` with the roles exchanged: the updates are the retain
    gradient, and the reference is the keyword-only argument `forget_grads` of
    `update`. Cost per step: one retain and one forget gradient.

    Returns:
      An Optax transformation with the state and the edge cases of
      `orthogonalize_against`.

    Raises:
      ValueError: in `update`, if `forget_grads` does not match the updates.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import uno_jax as uno
      >>> params = {"w": jnp.zeros(2)}
      >>> tx = optax.chain(uno.surgery(), optax.sgd(0.5))
      >>> state = tx.init(params)
      >>> retain_grads, forget_grads = {"w": jnp.array([2.0, 2.0])}, {"w": jnp.array([0.0, 1.0])}
      >>> updates, state = tx.update(retain_grads, state, params, forget_grads=forget_grads)
      >>> updates["w"]
      Array([-1., -0.], dtype=float32)

    References:
      Mandal and Gottwald, UNO, arXiv 2506.04712 (gradient surgery).
    """

    def update_fn(updates, state, params=None, *, forget_grads, **extra_args):
        del state, params, extra_args
        return _update(updates, forget_grads, "forget_grads")

    return optax.GradientTransformationExtraArgs(_init, update_fn)
