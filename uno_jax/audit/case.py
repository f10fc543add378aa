"""What is audited: models, data and judges; what cannot be is refused by name."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from uno_jax import trees
from uno_jax.training.finite import non_finite_leaves, some_of

NAMES = ("before", "after", "retrained", "control")
REQUIRED = NAMES[:2]
OWN = "own "
"""How the names of the audit's own judges begin."""
SHADOW = "shadow "
"""How the names of shadows begin."""


class Trainer(NamedTuple):
    """How a model goes on training, for relearning and for the control.

    Attributes:
      start: `start(params, key) -> state`, with a fresh optimizer.
      step: `step(state, batch) -> (state, metrics)`, not jitted.
      params: `params(state)`, what `Model.sample` and `Model.loss_fn` take.
    """

    start: Callable
    step: Callable
    params: Callable


@dataclasses.dataclass(frozen=True)
class Model:
    """How a model is used; its parameters are those of a `Case`.

    Attributes:
      sample: `sample(params, key, n) -> (n, ...)` images in the range of the data. Equal keys
        must draw equal latents: that is how outputs of two models are compared. It is called
        with few different n.
      loss_fn: `loss_fn(params, batch, key) -> (n,)`, the loss of each example, or None: then
        nothing is said of memory and relearning.
      encode: `encode(params, batch) -> (mean, log_variance)`, (n, K) each, if there is such a
        posterior.
      trainers: name to `Trainer`, for example one per mode of batch norm. From `loss_fn`,
        `audit.adam_trainer` makes one.
    """

    sample: Callable
    loss_fn: Callable | None = None
    encode: Callable | None = None
    trainers: Mapping[str, Trainer] = dataclasses.field(default_factory=dict)


class Judge(NamedTuple):
    """A classifier that says what samples show.

    Attributes:
      classify: from (n, ...) images to (n, classes) logits.
      forgotten: the classes that count as forgotten.
      took_part: whether a method was guided or stopped by it. Such a judge says nothing of
        forgetting; what it says more than the others is how far it was fooled.
    """

    classify: Callable
    forgotten: tuple[int, ...]
    took_part: bool = False


@dataclasses.dataclass(frozen=True)
class Data:
    """The examples on both sides, dicts of arrays with a common leading axis.

    `"image"` is needed; with `"label"`, (N,) int, the audit's own judges learn the classes and
    its figures are per class.

    Attributes:
      retain: what the model shall keep.
      forget: what it shall forget; the model before was trained on both.
      retain_held_out: examples like `retain` that no model was trained on, or None.
      forget_held_out: examples like `forget` that no model was trained on, or None. Without
        them there is no membership inference.
    """

    retain: dict
    forget: dict
    retain_held_out: dict | None = None
    forget_held_out: dict | None = None

    @property
    def sides(self) -> dict[str, dict]:
        """Those that are given, by name."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: side for name, side in fields.items() if side is not None}


@dataclasses.dataclass(frozen=True)
class Case:
    """Two models or more, the data and the judges.

    Attributes:
      data: the examples on both sides.
      params: parameters by name: `before`, `after`, and if there are such `retrained` (without
        the forget set) and `control` (as many steps of retain descent with the same optimizer,
        from before).
      model: how they are used; None if only samples are at hand.
      samples: (N, ...) images by the same names, instead of parameters.
      judges: name to `Judge`.
      shadows: parameters of models trained without the forget set, for the likelihood ratio.
      steps: of the method; the control is made with as many, if it is not given.
      cost: what the method and retraining took, as numbers by name: see `audit.COSTS`.
      about: further facts, for the report.
    """

    data: Data
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model: Model | None = None
    samples: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    judges: Mapping[str, Judge] = dataclasses.field(default_factory=dict)
    shadows: tuple[Any, ...] = ()
    steps: int = 0
    cost: Mapping[str, float] = dataclasses.field(default_factory=dict)
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def count(side: Mapping) -> int:
    """The number of examples of a side."""
    return len(side["image"])


def check(case: Case) -> None:
    """Refuses a case that cannot be audited.

    Raises:
      ValueError: saying what was expected and what was got.
    """
    for name, side in case.data.sides.items():
        _check_side(name, side, case.data)
    given = case.params if case.model else case.samples
    what = "params" if case.model else "samples"
    unknown = [name for name in given if name not in NAMES]
    missing = [name for name in REQUIRED if name not in given]
    if unknown or missing:
        raise ValueError(
            f"{what}: expected {', '.join(REQUIRED)} and perhaps {', '.join(NAMES[2:])}, "
            f"got {sorted(given)}."
        )
    if case.model is None and (case.params or case.shadows):
        raise ValueError("model: expected how the parameters are used, got None.")
    if case.model:
        for name, params in {**given, **numbered(case.shadows)}.items():
            trees.check_same_structure(
                params, given["before"], tree_name=name, reference_name="before"
            )
            if wrong := non_finite_leaves({name: params}):
                raise ValueError(
                    f"params: expected finite numbers, got others at {some_of(wrong)}."
                )
    else:
        for name, images in given.items():
            check_images(name, images, case.data)
    for name, judge in case.judges.items():
        if name.startswith(OWN):
            raise ValueError(f"judges: expected names that the audit's own have not, got {name!r}.")
        if not judge.forgotten:
            raise ValueError(f"judge {name}: expected the classes that are forgotten, got none.")
    if case.steps < 0:
        raise ValueError(f"steps: expected at least 0, got {case.steps}.")
    unknown = [name for name, value in case.cost.items() if not np.isfinite(value) or value < 0]
    if unknown:
        raise ValueError(f"cost: expected finite numbers of at least 0, got others: {unknown}.")


def numbered(shadows: tuple[Any, ...]) -> dict[str, Any]:
    """Shadows by name."""
    return {f"{SHADOW}{number}": params for number, params in enumerate(shadows)}


def _check_side(name: str, side: Mapping, data: Data) -> None:
    if "image" not in side:
        raise ValueError(f"{name}: expected arrays with the name image, got {sorted(side)}.")
    lengths = {key: len(value) if np.ndim(value) else None for key, value in side.items()}
    if len(set(lengths.values())) != 1 or None in lengths.values():
        raise ValueError(f"{name}: expected arrays of one length, got {lengths}.")
    if count(side) < 2:
        raise ValueError(f"{name}: expected at least 2 examples, got {count(side)}.")
    keys, shape = sorted(data.retain), np.shape(data.retain["image"])[1:]
    if sorted(side) != keys or np.shape(side["image"])[1:] != shape:
        raise ValueError(
            f"{name}: expected {keys} with images of {shape}, as in retain, got {sorted(side)} "
            f"with {np.shape(side['image'])[1:]}."
        )
    if not np.issubdtype(np.asarray(side["image"]).dtype, np.floating):
        raise ValueError(
            f"{name}: expected images of floats, as the model takes them, got "
            f"{np.asarray(side['image']).dtype}."
        )
    if not np.isfinite(side["image"]).all():
        raise ValueError(f"{name}: expected finite images, got NaN or infinity.")
    if "label" in side and not np.issubdtype(np.asarray(side["label"]).dtype, np.integer):
        raise ValueError(
            f"{name}: expected labels of integers, got {np.asarray(side['label']).dtype}."
        )


def check_images(name: str, images: Any, data: Data, slack: float = 0.25) -> None:
    """Refuses samples of another shape or range than the data.

    Args:
      name: what to call them.
      images: (N, ...) samples.
      data: the examples.
      slack: by how much of the data's range they may leave it.

    Raises:
      ValueError: saying what was expected and what was got.
    """
    shape = np.shape(data.retain["image"])[1:]
    if np.ndim(images) == 0 or np.shape(images)[1:] != shape or len(images) < 2:
        raise ValueError(
            f"{name}: expected at least 2 samples of {shape}, as the data has, got "
            f"{np.shape(images)}."
        )
    both = data.retain["image"], data.forget["image"]
    low, high = min(float(np.min(x)) for x in both), max(float(np.max(x)) for x in both)
    # A destroyed model may draw anything, but no model draws all of it outside, and none
    # that was scaled like the data has a wide range where the data has a narrow one.
    finite = np.asarray(images)[np.isfinite(images)]
    if not finite.size:
        raise ValueError(f"{name}: expected finite samples, got none.")
    a, b = np.percentile(finite, (0.5, 99.5))
    margin, span = slack * (high - low), (high - low) or 1.0
    if a < low - margin or b > high + margin or (b - a) < 0.02 * span:
        raise ValueError(
            f"{name}: expected images in the range of the data, {low:.3g} to {high:.3g}, got "
            f"{a:.3g} to {b:.3g}."
        )


def take(side: Mapping, rows: Any) -> dict:
    """Some examples of a side."""
    return jax.tree.map(lambda array: np.asarray(array)[rows], dict(side))


def held_out(sides: Mapping, side: str) -> Any:
    """What stands for a side's held-out part if there is one, else for the side."""
    return sides.get(f"{side}_held_out", sides[side])


def batches(side: Mapping, size: int, seed: int) -> Iterator[dict]:
    """Endless batches of a side, shuffled anew each time through; of a small one with repeats."""
    rng = np.random.default_rng(seed)
    total = count(side)
    while True:
        order = rng.permutation(max(total, size)) % total
        yield from (take(side, order[i : i + size]) for i in range(0, len(order) - size + 1, size))
