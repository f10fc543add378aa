"""How far a model is from the original and from the retrained one."""

from typing import Any

import jax
import numpy as np

from uno_jax import metrics
from uno_jax.audit import case as cases
from uno_jax.audit.case import held_out
from uno_jax.audit.evidence import Evidence, mean_with_interval
from uno_jax.losses import diagonal_gaussian


def measure(
    name: str, other: str, evidence: Evidence, case: cases.Case, params: dict[str, Any]
) -> dict:
    """Compares two models.

    Args:
      name: of the model.
      other: of the one it is compared with.
      evidence: samples, features and losses of both.
      case: the model's functions and the data.
      params: of both.

    Returns:
      `samples_frechet`, the distance between their samples; with parameters `output_change`,
      the root mean square difference of outputs of equal latents over the standard deviation of
      the data; with a loss `retain_gap` and `forget_gap`, the mean difference of losses; with an
      encoder `encoder_kl`, in nats per retained example.
    """
    a, b = evidence.features[name], evidence.features[other]
    found: dict = {"samples_frechet": metrics.frechet_distance(a, b)}
    if not case.model:
        return found
    difference = np.nan_to_num(evidence.samples[name]) - np.nan_to_num(evidence.samples[other])
    deviation = np.std(case.data.retain["image"])
    found["output_change"] = float(
        np.sqrt(np.mean(np.square(difference, dtype=np.float64))) / deviation
    )
    if name in evidence.losses:
        for side in ("retain", "forget"):
            values = [held_out(evidence.losses[who], side) for who in (name, other)]
            found[f"{side}_gap"] = mean_with_interval(values[0] - values[1])
    if case.model.encode:
        rows = held_out(evidence.rows, "retain")
        batch = cases.take(held_out(case.data.sides, "retain"), rows)
        encode = jax.jit(case.model.encode)
        found["encoder_kl"] = mean_with_interval(
            diagonal_gaussian().divergence(
                encode(params[name], batch), encode(params[other], batch)
            )
        )
    return found
