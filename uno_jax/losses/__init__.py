"""What is added to a training loss or stands in its place: hat, exchange, erasing, matching."""

from uno_jax.losses.erasing import erasing_loss
from uno_jax.losses.exchange import exchange_loss, relabelling_loss
from uno_jax.losses.families import Family, bernoulli, diagonal_gaussian, gaussian
from uno_jax.losses.hat import hat_divergence, hat_loss
from uno_jax.losses.matching import Term, anchor, curvature, match

__all__ = [
    "Family",
    "Term",
    "anchor",
    "bernoulli",
    "curvature",
    "diagonal_gaussian",
    "erasing_loss",
    "exchange_loss",
    "gaussian",
    "hat_divergence",
    "hat_loss",
    "match",
    "relabelling_loss",
]
