"""uno_jax: remove data from a trained generative model, fast, in JAX.

Imported with jax and optax alone, this is the core: Optax transformations and
the step and loop around them. The rest is imported by its own name, for example
`from uno_jax import data`, and says which extra it needs.
"""

from uno_jax import methods
from uno_jax._version import __version__
from uno_jax.case import Case
from uno_jax.diffusion import Diffusion
from uno_jax.forgetting import Forgotten, forget
from uno_jax.generative import VAE, Bound, from_equinox, from_linen, from_nnx
from uno_jax.objectives.erasing import erasing_loss
from uno_jax.objectives.exchange import exchange_loss, relabelling_loss
from uno_jax.objectives.families import Family, bernoulli, diagonal_gaussian, gaussian
from uno_jax.objectives.hat import hat_divergence, hat_loss
from uno_jax.objectives.matching import Term, anchor, curvature, match
from uno_jax.training.finite import NonFiniteError, non_finite_leaves
from uno_jax.training.halves import Gradients, make_gradients, make_update
from uno_jax.training.ledger import append_to_ledger, read_ledger
from uno_jax.training.loop import Result, print_progress, settled, train, unlearn
from uno_jax.training.matching import make_matching_step
from uno_jax.training.requests import Request, unlearn_requests
from uno_jax.training.state import TrainState, copy_state, create_state
from uno_jax.training.step import make_training_step, make_unlearning_step
from uno_jax.training.subset import Subset, join, trainable, with_frozen
from uno_jax.training.turns import jit_turns
from uno_jax.training.warm import second_moment, warm_adam
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
from uno_jax.trees import accept_masked

__all__ = [
    "VAE",
    "AddedLossState",
    "AlternateState",
    "AverageState",
    "Bound",
    "Case",
    "Diffusion",
    "Family",
    "Forgotten",
    "GaussNewtonState",
    "Gradients",
    "LineSearchState",
    "NonFiniteError",
    "OrthogonalizeState",
    "ProjectionState",
    "PullState",
    "Request",
    "Result",
    "SaliencyState",
    "Subset",
    "Term",
    "TrainState",
    "__version__",
    "accept_masked",
    "add_forget",
    "add_loss",
    "alternate",
    "anchor",
    "append_to_ledger",
    "ascend",
    "ascend_orthogonally",
    "average_params",
    "bernoulli",
    "copy_state",
    "create_state",
    "curvature",
    "diagonal_gaussian",
    "erasing_loss",
    "exchange_loss",
    "forget",
    "from_equinox",
    "from_linen",
    "from_nnx",
    "gaussian",
    "hat_divergence",
    "hat_loss",
    "jit_turns",
    "join",
    "keep_salient",
    "line_search",
    "make_gradients",
    "make_matching_step",
    "make_training_step",
    "make_unlearning_step",
    "make_update",
    "match",
    "methods",
    "non_finite_leaves",
    "orthogonalize",
    "orthogonalize_against",
    "print_progress",
    "project_out",
    "pull_to_start",
    "read_ledger",
    "relabelling_loss",
    "saliency_mask",
    "scale_by_gauss_newton",
    "scale_by_second_moment",
    "second_moment",
    "settled",
    "surgery",
    "train",
    "trainable",
    "unlearn",
    "unlearn_requests",
    "warm_adam",
    "with_frozen",
]
