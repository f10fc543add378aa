"""What is drawn and computed once of every model: samples, features, losses."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from uno_jax import metrics
from uno_jax.audit import case as cases
from uno_jax.audit import judging
from uno_jax.audit.settings import Settings

CHUNK = 500
# Different purposes draw with different keys.
SAMPLES, LOSSES, RELEARNING, CONTROL = range(4)


class Evidence(NamedTuple):
    """Everything by name of the model.

    Attributes:
      samples: (N, ...) images, of equal latents.
      classes: name of a judge to its (N,) predictions for the samples.
      features: (N, D) of the samples.
      losses: side to (n,) losses of the same examples, averaged over draws; empty without a
        loss.
      real: side to (n, D) features of the same examples.
      rows: side to the rows of those examples.
    """

    samples: dict[str, np.ndarray]
    classes: dict[str, dict[str, np.ndarray]]
    features: dict[str, np.ndarray]
    losses: dict[str, dict[str, np.ndarray]]
    real: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]


def key_of(settings: Settings, purpose: int) -> jax.Array:
    """The key of one purpose."""
    return jax.random.fold_in(jax.random.key(settings.seed), purpose)


def draw(sample: Callable, params: Any, key: jax.Array, total: int) -> np.ndarray:
    """(total, ...) samples, drawn a chunk at a time; equal keys, equal latents."""
    size = min(CHUNK, total)
    parts = [
        np.asarray(sample(params, jax.random.fold_in(key, number), size))
        for number in range(-(-total // size))
    ]
    if np.ndim(parts[0]) == 0 or len(parts[0]) != size:
        raise ValueError(f"sample: expected {size} samples, got shape {np.shape(parts[0])}.")
    return np.concatenate(parts)[:total]


def losses_of(
    loss_fn: Callable, params: Any, examples: dict, key: jax.Array, draws: int
) -> np.ndarray:
    """(n,) losses of examples, each averaged over draws of its noise.

    Raises:
      ValueError: unless the loss is one number per example.
    """
    total = cases.count(examples)
    size = min(CHUNK, total)
    parts = []
    for start in range(0, total, size):
        # The last chunk is filled up, so that one program does for all.
        rows = np.arange(start, start + size) % total
        batch = cases.take(examples, rows)
        values = [
            loss_fn(params, batch, jax.random.fold_in(jax.random.fold_in(key, start), number))
            for number in range(draws)
        ]
        if np.shape(values[0]) != (size,):
            raise ValueError(
                f"loss_fn: expected a loss of each example, shape ({size},), got "
                f"{np.shape(values[0])}."
            )
        parts.append(np.mean([np.asarray(value, np.float64) for value in values], axis=0))
    return np.concatenate(parts)[:total]


def gather(
    case: cases.Case,
    params: dict[str, Any],
    judges: dict[str, cases.Judge],
    own: judging.OwnJudge,
    settings: Settings,
) -> Evidence:
    """Draws from every model, has it judged and computes every loss.

    Args:
      case: what is audited, checked.
      params: of the models, by name; empty if only samples are at hand.
      judges: everyone who looks.
      own: the judge whose features are measured in.
      settings: how much.

    Returns:
      An `Evidence`.

    Raises:
      ValueError: for samples or losses that are not what they should be.
    """
    rng = np.random.default_rng(settings.seed)
    rows = {
        name: np.sort(rng.permutation(cases.count(side))[: settings.examples])
        for name, side in case.data.sides.items()
    }
    some = {name: cases.take(side, rows[name]) for name, side in case.data.sides.items()}
    if case.model:
        sample = jax.jit(case.model.sample, static_argnums=2)
        key = key_of(settings, SAMPLES)
        samples = {name: draw(sample, tree, key, settings.samples) for name, tree in params.items()}
    else:
        samples = {name: np.asarray(images) for name, images in case.samples.items()}
    losses = {}
    if case.model and case.model.loss_fn:
        loss_fn = jax.jit(case.model.loss_fn)
        key = key_of(settings, LOSSES)
        trees = {**params, **cases.numbered(case.shadows)}
        losses = {
            name: {
                side: losses_of(loss_fn, tree, batch, key, settings.draws)
                for side, batch in some.items()
            }
            for name, tree in trees.items()
        }
    return Evidence(
        samples,
        {
            name: {who: judging.predictions(judge, images) for who, judge in judges.items()}
            for name, images in samples.items()
        },
        {name: judging.features(own.embed, images) for name, images in samples.items()},
        losses,
        {name: judging.features(own.embed, batch["image"]) for name, batch in some.items()},
        rows,
    )


def mean_with_interval(values: np.ndarray) -> dict[str, float]:
    """Mean of at least one value, its 95 % interval by the normal approximation, their number.

    With a value that is not finite all are infinite: a loss that overflows is no small loss.
    """
    values = np.asarray(values, np.float64)
    total = len(values)
    if not np.isfinite(values).all():
        return {"value": np.inf, "low": np.inf, "high": np.inf, "total": total}
    mean = float(values.mean())
    half = float(1.96 * values.std(ddof=1) / np.sqrt(total)) if total > 1 else np.inf
    return {"value": mean, "low": mean - half, "high": mean + half, "total": total}


def value_of(proportion: dict) -> float:
    """A counted proportion as a number."""
    return metrics.Proportion(**proportion).value


def on_retrained(models: dict[str, dict]) -> dict[str, float]:
    """What each judge takes for the forgotten on the retrained model, which never saw any."""
    fractions = models.get("retrained", {}).get("generation", {}).get("fractions", {})
    return {who: value_of(fraction) for who, fraction in fractions.items()}
