"""Terms of an objective that ask a model's outputs to match a target."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from uno_jax.losses.families import Family


class Term(NamedTuple):
    """One term of an objective, with what its Gauss-Newton matrix needs.

    Attributes:
      loss_fn: `loss_fn(params, batch, key) -> scalar`, the mean divergence.
      outputs_fn: `outputs_fn(params, batch, key) -> outputs`.
      fisher: `fisher(outputs, tangent) -> cotangent`, per example.
      weight: how much the term counts, at least 0.
    """

    loss_fn: Callable
    outputs_fn: Callable
    fisher: Callable
    weight: float


def match(
    outputs_fn: Callable, target_fn: Callable, family: Family, *, weight: float = 1.0
) -> Term:
    r"""A term that pulls the outputs of a model to given targets.

    .. math:: w \cdot \frac1N \sum_n \text{KL}(t_n \,\|\, f_\theta(x_n))

    Args:
      outputs_fn: `outputs_fn(params, batch, key) -> outputs`, a tree of arrays
        with examples along their first axis.
      target_fn: `target_fn(batch, key) -> outputs`, what the outputs ought to be;
        it sees the same batch and the same noise. This is the whole interface of
        a redirect: the original decoder's picture of the nearest retained latent,
        an exchange class, a retained denoiser.
      family: the divergence and its metric.
      weight: of the term in an objective.

    Returns:
      A `Term`. Targets carry no gradient.

    Raises:
      ValueError: if `weight` is negative.
    """
    if not weight >= 0:
        raise ValueError(f"weight: expected a number of at least 0, got {weight}.")

    def loss_fn(params, batch, key):
        target = jax.lax.stop_gradient(target_fn(batch, key))
        return jnp.mean(family.divergence(target, outputs_fn(params, batch, key)))

    return Term(loss_fn, outputs_fn, family.fisher, weight)


def anchor(
    outputs_fn: Callable, original_params: Any, family: Family, *, weight: float = 1.0
) -> Term:
    """A term that holds the outputs of a model where the original had them.

    Its gradient is exactly zero at the original parameters: unlike the retain
    loss, whose gradient at a converged model is noise, it never moves a model
    that does not have to move.

    Args:
      outputs_fn: `outputs_fn(params, batch, key) -> outputs`.
      original_params: the parameters before unlearning.
      family: the divergence and its metric.
      weight: of the term in an objective.

    Returns:
      A `Term`.
    """
    return match(
        outputs_fn,
        lambda batch, key: outputs_fn(original_params, batch, key),
        family,
        weight=weight,
    )


def curvature(term: Term, params: Any, batch: Any, key: jax.Array) -> Callable:
    r"""The Gauss-Newton product of a term, without its weight.

    .. math:: v \mapsto \frac1N J^\top F J v, \quad J = \partial f_\theta / \partial \theta

    The model is linearised once; each product then costs one forward and one
    transposed pass of the linear map.

    Args:
      term: the term.
      params: where to linearise.
      batch: N examples.
      key: noise of the outputs.

    Returns:
      `product(vector) -> tree`, symmetric and positive semi-definite; `vector`
      has the structure and dtypes of `params`.
    """
    outputs, forward = jax.linearize(lambda p: term.outputs_fn(p, batch, key), params)
    backward = jax.linear_transpose(forward, params)
    count = jax.tree.leaves(outputs)[0].shape[0]

    def product(vector):
        cotangent = term.fisher(outputs, forward(vector))
        cotangent = jax.tree.map(lambda c, o: (c / count).astype(o.dtype), cotangent, outputs)
        return backward(cotangent)[0]

    return product
