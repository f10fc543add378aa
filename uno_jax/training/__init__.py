"""Train state, steps, loops, frozen parameters, and a warm start for Adam."""

from uno_jax.training.finite import NonFiniteError, non_finite_leaves
from uno_jax.training.halves import Gradients, make_gradients, make_update
from uno_jax.training.loop import Result, print_progress, settled, train, unlearn
from uno_jax.training.matching import make_matching_step
from uno_jax.training.state import TrainState, copy_state, create_state
from uno_jax.training.step import make_training_step, make_unlearning_step
from uno_jax.training.subset import Subset, join, trainable, with_frozen
from uno_jax.training.turns import jit_turns
from uno_jax.training.warm import second_moment, warm_adam
from uno_jax.trees import accept_masked

__all__ = [
    "Gradients",
    "NonFiniteError",
    "Result",
    "Subset",
    "TrainState",
    "accept_masked",
    "copy_state",
    "create_state",
    "jit_turns",
    "join",
    "make_gradients",
    "make_matching_step",
    "make_training_step",
    "make_unlearning_step",
    "make_update",
    "non_finite_leaves",
    "print_progress",
    "second_moment",
    "settled",
    "train",
    "trainable",
    "unlearn",
    "warm_adam",
    "with_frozen",
]
