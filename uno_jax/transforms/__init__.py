"""Optax transformations: UNO, projections, ascent, alternation, and what goes with them.

Each is a factory that returns an `optax.GradientTransformationExtraArgs`. They compose with
`optax.chain`, `optax.masked` and `optax.inject_hyperparams`.
"""

from uno_jax.transforms.added_loss import AddedLossState, add_loss
from uno_jax.transforms.alternation import AlternateState, alternate
from uno_jax.transforms.ascent import add_forget, ascend, ascend_orthogonally
from uno_jax.transforms.averaging import AverageState, average_params
from uno_jax.transforms.gauss_newton import GaussNewtonState, scale_by_gauss_newton
from uno_jax.transforms.line_search import LineSearchState, line_search
from uno_jax.transforms.orthogonalize import OrthogonalizeState, orthogonalize
from uno_jax.transforms.projection import (
    ProjectionState,
    orthogonalize_against,
    project_out,
    surgery,
)
from uno_jax.transforms.saliency import SaliencyState, keep_salient, saliency_mask
from uno_jax.transforms.second_moment import PullState, pull_to_start, scale_by_second_moment

__all__ = [
    "AddedLossState",
    "AlternateState",
    "AverageState",
    "GaussNewtonState",
    "LineSearchState",
    "OrthogonalizeState",
    "ProjectionState",
    "PullState",
    "SaliencyState",
    "add_forget",
    "add_loss",
    "alternate",
    "ascend",
    "ascend_orthogonally",
    "average_params",
    "keep_salient",
    "line_search",
    "orthogonalize",
    "orthogonalize_against",
    "project_out",
    "pull_to_start",
    "saliency_mask",
    "scale_by_gauss_newton",
    "scale_by_second_moment",
    "surgery",
]
