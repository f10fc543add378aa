"""Judges that the audit trains itself, on both sides of the data, and their features.

No method ever sees them. With labels they learn the classes, and those that only the forget
set has are the forgotten ones; otherwise they tell the two sides apart, at even odds in
training and at those of the data when they judge.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import uno_jax as uno
from uno_jax import metrics
from uno_jax.audit import case as cases
from uno_jax.audit import networks

BATCH = 128
CHUNK = 1000
FAR = 1e6


class OwnJudge(NamedTuple):
    """A judge that the audit trained.

    Attributes:
      name: among the judges.
      judge: what it says.
      embed: from (n, ...) images to (n, D) features.
      classes: the labels its classes stand for; `(0, 1)` are retained and forgotten if there
        are no labels to learn.
      by_label: whether it learned labels.
    """

    name: str
    judge: cases.Judge
    embed: Callable
    classes: tuple[int, ...]
    by_label: bool


class Targets(NamedTuple):
    """What a judge learns.

    Attributes:
      sides: name of a side to (N,) int classes.
      labels: what the classes stand for.
      forgotten: the classes that count as forgotten.
      by_label: whether they are those of the data.
    """

    sides: dict[str, np.ndarray]
    labels: tuple[int, ...]
    forgotten: tuple[int, ...]
    by_label: bool


def targets(data: cases.Data) -> Targets:
    """The classes of each side, those of the data if the forget set is classes of its own."""
    if "label" in data.retain:
        kept, gone = (np.unique(side["label"]) for side in (data.retain, data.forget))
        only = np.setdiff1d(gone, kept)
        # Some examples of a class, or an attribute across classes, are not a class of their own.
        if len(only) and not len(np.setdiff1d(gone, only)):
            labels = np.union1d(kept, gone)
            sides = {
                name: np.searchsorted(labels, side["label"]) for name, side in data.sides.items()
            }
            forgotten = tuple(int(i) for i in np.searchsorted(labels, only))
            return Targets(sides, tuple(int(label) for label in labels), forgotten, True)
    sides = {
        name: np.full(cases.count(side), int(name.startswith("forget")))
        for name, side in data.sides.items()
    }
    return Targets(sides, (0, 1), (1,), False)


def train_judge(
    name: str,
    data: cases.Data,
    make: Callable[[int], nn.Module],
    *,
    steps: int,
    seed: int,
) -> OwnJudge:
    """Trains a judge on the training examples of both sides.

    Args:
      name: of the judge.
      data: the examples.
      make: from the number of classes to the network.
      steps: of Adam, its rate falling from 2e-3 to zero as a cosine, batches of 128.
      seed: of parameters and batches.

    Returns:
      An `OwnJudge`.
    """
    classes_of, labels, forgotten, by_label = targets(data)
    images = np.concatenate([data.retain["image"], data.forget["image"]])
    classes = np.concatenate([classes_of["retain"], classes_of["forget"]])
    centre, scale = images.mean(), images.std() + 1e-6
    network = make(len(labels))
    key = jax.random.key(seed)
    params = jax.jit(network.init)(key, jnp.asarray(images[:2]))["params"]
    tx = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

    def loss_fn(params, batch, key):
        logits = network.apply({"params": params}, (batch["image"] - centre) / scale)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    examples = {"image": images, "label": classes}
    stream = _balanced(examples, seed) if len(labels) == 2 else cases.batches(examples, BATCH, seed)
    step = jax.jit(uno.make_training_step(loss_fn, tx), donate_argnums=0)
    state = uno.create_state(params, tx, key)
    params = uno.train(step, state, stream, max_steps=steps).state.params

    odds = np.zeros(len(labels))
    if len(labels) == 2:
        odds = np.log(np.bincount(classes, minlength=2) / len(classes))

    @jax.jit
    def classify(images):
        return network.apply({"params": params}, (images - centre) / scale) + odds

    @jax.jit
    def embed(images):
        return network.apply({"params": params}, (images - centre) / scale, method="embed")

    return OwnJudge(name, cases.Judge(classify, forgotten), embed, labels, by_label)


def _balanced(examples, seed):
    rng = np.random.default_rng(seed)
    sides = [np.flatnonzero(examples["label"] == value) for value in (0, 1)]
    while True:
        rows = np.concatenate([rng.choice(side, BATCH // 2) for side in sides])
        yield cases.take(examples, rows)


def own_judges(data: cases.Data, *, steps: int, seed: int) -> dict[str, OwnJudge]:
    """Trains two judges of different architecture; the first one's features are measured in.

    Args:
      data: the examples.
      steps: of each.
      seed: of the first; the second has the next.

    Returns:
      Name to judge: convolutional and a perceptron, on data without pictures perceptrons of
      two and of one hidden layer.
    """
    shape = networks.picture_shape(np.shape(data.retain["image"])[1:])
    makers: dict[str, Callable] = {"own perceptron": networks.JudgePerceptron}
    if shape:
        makers = {"own network": partial(networks.JudgeCNN, shape=shape), **makers}
    else:
        makers["own shallow perceptron"] = partial(networks.JudgePerceptron, widths=(256,))
    return {
        name: train_judge(name, data, make, steps=steps, seed=seed + number)
        for number, (name, make) in enumerate(makers.items())
    }


def predictions(judge: cases.Judge, images) -> np.ndarray:
    """(N,) int, the class of each image; -1 of those that are not finite.

    A destroyed model draws NaN: such a picture is of no class.
    """
    images = np.asarray(images)
    finite = np.isfinite(images.reshape(len(images), -1)).all(axis=1)
    classes = metrics.predict(judge.classify, np.nan_to_num(images), chunk=CHUNK)
    return np.where(finite, classes, -1)


def features(embed: Callable, images) -> np.ndarray:
    """(N, D) float32 features, in chunks."""
    images = np.nan_to_num(np.asarray(images))
    parts = [np.asarray(embed(images[i : i + CHUNK])) for i in range(0, len(images), CHUNK)]
    # Of pictures far from all data distances must stay numbers.
    return np.clip(np.nan_to_num(np.concatenate(parts)), -FAR, FAR)


def counted(judge: cases.Judge, classes: np.ndarray) -> metrics.Proportion:
    """The fraction of a judge's predictions that count as forgotten."""
    found = np.isin(classes, judge.forgotten)
    return metrics.proportion(int(found.sum()), len(found))


def forgotten(judge: cases.Judge, images) -> metrics.Proportion:
    """The fraction of images that a judge counts as forgotten."""
    return counted(judge, predictions(judge, images))


def reliability(judges: Mapping[str, cases.Judge], data: cases.Data) -> dict[str, dict]:
    """What each judge says of real examples, held-out ones if there are such.

    Returns:
      Name to `recall` on the forget set and `false_alarms` on the retained one, a
      `metrics.Proportion` as a dict each, `held_out` and `took_part`.

    Raises:
      ValueError: for a judge that cannot tell the two sides apart.
    """
    forget, retain = (cases.held_out(data.sides, side)["image"] for side in ("forget", "retain"))
    found = {}
    for name, judge in judges.items():
        logits = np.asarray(judge.classify(retain[:2]))
        if logits.ndim != 2 or logits.shape[1] < 2 or max(judge.forgotten) >= logits.shape[1]:
            raise ValueError(
                f"judge {name}: expected logits of at least two classes, {judge.forgotten} among "
                f"them, for each image, got shape {logits.shape} for two images."
            )
        recall, alarms = forgotten(judge, forget), forgotten(judge, retain)
        if recall.low <= alarms.high:
            raise ValueError(
                f"judge {name}: expected to tell the forget set from the retained one, got "
                f"{recall} and {alarms} counted as forgotten."
            )
        found[name] = {
            "recall": recall._asdict(),
            "false_alarms": alarms._asdict(),
            "held_out": data.forget_held_out is not None and data.retain_held_out is not None,
            "took_part": judge.took_part,
        }
    return found
