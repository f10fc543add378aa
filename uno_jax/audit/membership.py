"""Membership inference: can one tell that a forget example was in the training set?"""

import numpy as np

from uno_jax import metrics
from uno_jax.audit.case import SHADOW
from uno_jax.audit.evidence import Evidence
from uno_jax.audit.settings import Settings


def scores(losses: np.ndarray, references: list[np.ndarray]) -> np.ndarray:
    """The likelihood ratio's score of each example, higher for a member.

    A reference is the loss of a model that never saw the example. With one, the score is by how
    much the loss is below it; with more it is so many of their standard deviations below their
    mean, the deviations pooled over the examples, since few shadows give no good one each.

    Args:
      losses: (n,) of the model.
      references: at least one (n,).

    Returns:
      (n,) float64.

    References:
      Carlini et al., arXiv 2112.03570 (offline attack).
    """
    stack = np.stack(references)
    below = stack.mean(axis=0) - losses
    if len(stack) == 1:
        return below
    deviation = np.sqrt(stack.var(axis=0, ddof=1).mean())
    return below / max(deviation, 1e-12)


def measure(name: str, evidence: Evidence, settings: Settings) -> dict:
    """Attacks a model: forget examples against held-out ones of the same kind.

    Args:
      name: of the model, with losses on both.
      evidence: the losses.
      settings: resamples and their seed.

    Returns:
      `threshold`, of minus the loss, and if there are models that never saw the examples
      `ratio`; a `metrics.Attack` as a dict each.
    """
    members, others = (evidence.losses[name][side] for side in ("forget", "forget_held_out"))
    found = {"threshold": _attack(-members, -others, settings)}
    shadows = [who for who in evidence.losses if who.startswith(SHADOW)]
    references = shadows or [who for who in ("retrained",) if who in evidence.losses]
    references = [who for who in references if who != name]
    if references:
        both = (
            scores(own, [evidence.losses[who][side] for who in references])
            for own, side in ((members, "forget"), (others, "forget_held_out"))
        )
        found["ratio"] = _attack(*both, settings)
    return found


def _attack(members, others, settings) -> dict:
    # An example whose loss overflows is taken for one with the greatest of the others.
    bound = np.finfo(np.float64).max
    members, others = (
        np.nan_to_num(s, nan=-bound, posinf=bound, neginf=-bound) for s in (members, others)
    )
    found = metrics.attack(members, others, resamples=settings.resamples, seed=settings.seed)
    return found._asdict()
