"""UNO: descend the retain loss with the two gradients driven orthogonal."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from uno_jax import trees
from uno_jax.transforms.products import HESSIANS


class OrthogonalizeState(NamedTuple):
    r"""State of `orthogonalize`; the figures are those before the last step.

    Attributes:
      count: int32 scalar, updates made so far; what a weight schedule is asked.
      cosine: float32 scalar in [-1, 1], between retain and forget gradient.
      retain_norm: float32 scalar, Euclidean norm of the retain gradient.
      forget_norm: float32 scalar, Euclidean norm of the forget gradient.
      penalty_norm: float32 scalar, Euclidean norm of the penalty's gradient
        :math:`w \nabla\cos^2`, before the bound.
      penalty_ratio: float32 scalar, `penalty_norm / retain_norm`; the bound acts
        where it is above `max_ratio`.
    """

    count: jax.Array
    cosine: jax.Array
    retain_norm: jax.Array
    forget_norm: jax.Array
    penalty_norm: jax.Array
    penalty_ratio: jax.Array


def _inverse(norm):
    return jnp.where(norm > 0, 1.0 / jnp.where(norm > 0, norm, 1.0), 0.0)


def orthogonalize(
    weight: optax.ScalarOrSchedule = 1e3,
    *,
    max_ratio: jax.Array | float | None = 1.0,
    hessian: str = "exact",
) -> optax.GradientTransformationExtraArgs:
    r"""UNO: adds the gradient of the squared cosine between the two gradients.

    Turns the retain gradient :math:`g_r` into the gradient of
    :math:`L_r + w \cos^2(g_r, g_f)`, with the gradient of the second term, the penalty,
    at most `max_ratio` times as long as :math:`g_r`:

    .. math::
      g_r + \min\Big(1, \frac{\rho\, |g_r|}{|w \nabla \cos^2|}\Big)\, w \nabla \cos^2.

    With :math:`c` the cosine, hats for unit vectors and :math:`H` the Hessians of the two
    losses,

    .. math::
      \nabla \cos^2 = H_r v_r + H_f v_f, \quad
      v_r = \frac{2c}{|g_r|} (\hat g_f - c\, \hat g_r), \quad
      v_f = \frac{2c}{|g_f|} (\hat g_r - c\, \hat g_f).

    Cost per step: one retain and one forget gradient and one Hessian-vector
    product of each loss, that is up to three times that of the gradients alone.
    `hessian="finite-difference"` makes it up to twice, with less memory, and
    `alternate(orthogonalize(16 * w), *15 * [optax.identity()])` spreads it over 16
    steps ("lazy regularisation"); `python -m benchmarks.hessians` measures both.

    Args:
      weight: :math:`w \ge 0`, or a schedule from the update count to it. In
        units of the loss, since the cosine has none: for a loss summed over the
        batch it is set against that sum.
      max_ratio: :math:`\rho \ge 0`, a number or a scalar array, the greatest length of the
        penalty's gradient in lengths of the retain gradient; `jnp.inf` is no bound. Where the
        bound is not reached, the update is bitwise the unbounded one. `None` is the published
        form, without a bound. Its weight is made for losses summed over the batch: on a loss
        that is a mean, 50 steps of `optax.adam(1e-3)` without a bound destroy the model.
      hessian: how the products are taken. `"exact"`: forward over reverse.
        `"finite-difference"`: one more gradient each, for float32 parameters. The
        penalty's gradient was off by 2e-4 on a transformer and by 5e-2 on a VAE with
        LeakyReLU and batch norm, both on noise; on the published MNIST VAE, ReLU and
        batch norm, by twice its length.

    Returns:
      An Optax transformation whose `update(updates, state, params, *,
      retain_grad_fn, forget_grad_fn, **extra_args)` takes the retain gradient
      as `updates`, and two functions from parameters to gradient, at the same
      batches and the same noise as `updates`. They may average over a mapped
      axis inside, which makes every quantity that of the global gradients.
      Reductions are in float32, the dtypes of `updates` are kept. The state
      holds `cosine`, `retain_norm`, `forget_norm`, `penalty_norm` and `penalty_ratio` from
      before the step, to be read with `optax.tree.get`; `uno.make_unlearning_step` puts
      them into its metrics.

      ==============================  =========================================
      edge case                       value
      ==============================  =========================================
      a gradient is zero              updates unchanged, cosine and penalty 0,
                                      but for products that are not finite
      something is not finite         so are updates, norms and penalty
      a negative or NaN array as      updates are NaN
      `max_ratio`
      None leaf                       passed over
      masked node (`optax.masked`)    passed over; the gradient functions must
                                      accept masked parameters, see
                                      `uno.training.accept_masked`
      ==============================  =========================================

    Raises:
      ValueError: for an unknown `hessian`, a negative `weight` or `max_ratio`; in `update`, if
        `params` is missing or a gradient function returns another structure or
        other shapes than `updates`.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> import uno_jax as uno
      >>> retain_grad_fn = jax.grad(lambda p: jnp.sum((p - 1.0) ** 2))
      >>> forget_grad_fn = jax.grad(lambda p: jnp.sum(p**4))
      >>> params = jnp.array([1.0, 2.0])
      >>> tx = optax.chain(uno.orthogonalize(), optax.adam(1e-3))
      >>> state = tx.init(params)
      >>> updates, state = tx.update(
      ...     retain_grad_fn(params), state, params,
      ...     retain_grad_fn=retain_grad_fn, forget_grad_fn=forget_grad_fn)
      >>> print(f"{optax.tree.get(state, 'cosine'):.3f}")
      0.992

    References:
      Mandal and Gottwald, UNO: Unlearning via Orthogonalization in Generative
      models, arXiv 2506.04712 (without the bound). Lazy regularisation: Karras et al.,
      Analyzing and improving the image quality of StyleGAN, arXiv 1912.04958.
    """
    if hessian not in HESSIANS:
        raise ValueError(f"hessian: expected one of {sorted(HESSIANS)}, got {hessian!r}.")
    product = HESSIANS[hessian]
    if isinstance(weight, (int, float)) and not weight >= 0:
        raise ValueError(f"weight: expected a number of at least 0 or a schedule, got {weight}.")
    if isinstance(max_ratio, (int, float)) and not max_ratio >= 0:
        raise ValueError(
            f"max_ratio: expected a number of at least 0, or None for no bound, got {max_ratio}."
        )

    def init_fn(params):
        del params
        zero = jnp.zeros((), jnp.float32)
        return OrthogonalizeState(jnp.zeros((), jnp.int32), zero, zero, zero, zero, zero)

    def update_fn(
        updates,
        state,
        params=None,
        *,
        retain_grad_fn: Callable,
        forget_grad_fn: Callable,
        **extra_args,
    ):
        del extra_args
        if params is None:
            raise ValueError("orthogonalize: expected params in update(...), got None.")
        forget_grads = trees.aligned(
            forget_grad_fn(params),
            updates,
            tree_name="forget_grad_fn(params)",
            reference_name="updates",
        )
        retain, retain_norm = trees.direction(updates)
        forget, forget_norm = trees.direction(forget_grads)
        cosine = trees.dot(retain, forget)
        retain_vector = trees.add_scaled(forget, -cosine, retain)
        forget_vector = trees.add_scaled(retain, -cosine, forget)
        # The products are linear, so the small factor 2c/|g| is applied after
        # them: a vector of order one survives the cast to a bfloat16 leaf.
        penalty = trees.combine(
            2 * cosine * _inverse(retain_norm),
            trees.restrict(product(retain_grad_fn, params, retain_vector), updates),
            2 * cosine * _inverse(forget_norm),
            trees.restrict(product(forget_grad_fn, params, forget_vector), updates),
        )
        trees.check_same_structure(
            penalty, updates, tree_name="retain_grad_fn(params)", reference_name="updates"
        )
        strength = weight(state.count) if callable(weight) else weight
        length = trees.direction(penalty).norm
        penalty_norm = jnp.abs(strength) * length
        # No bound is an infinite one: both are one program, so that they round alike.
        bound = jnp.asarray(jnp.inf if max_ratio is None else max_ratio, jnp.float32)
        limit = bound * retain_norm
        factor = jnp.where(penalty_norm > limit, limit * _inverse(length), strength)
        # What is no bound, as a negative number that was traced, is seen.
        factor = jnp.where(bound >= 0, factor, jnp.nan)
        result = trees.add_scaled(updates, factor, penalty)
        return result, OrthogonalizeState(
            count=optax.safe_increment(state.count),
            cosine=cosine.astype(jnp.float32),
            retain_norm=retain_norm.astype(jnp.float32),
            forget_norm=forget_norm.astype(jnp.float32),
            penalty_norm=penalty_norm.astype(jnp.float32),
            penalty_ratio=(penalty_norm * _inverse(retain_norm)).astype(jnp.float32),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
