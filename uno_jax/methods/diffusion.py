"""Every method on a diffusion model: with labels, and the gradient methods without."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from uno_jax import diffusion, trees
from uno_jax.losses.erasing import erasing_loss
from uno_jax.losses.exchange import relabelling_loss
from uno_jax.methods.gradient import (
    check_loss,
    check_options,
    cost_of,
    make_job,
    read_sides,
)
from uno_jax.methods.job import Job
from uno_jax.methods.table import get_method
from uno_jax.training.examples import OTHER, Batches, Examples, joined
from uno_jax.training.subset import join
from uno_jax.training.subset import trainable as trainable_leaves
from uno_jax.transforms.ascent import add_forget

CONDITIONING = r"(^|/)(label|modulation)(/|$)"
"""Where labels come into the models of `uno_jax.models`: their table, and what it modulates."""
LABEL_DROPOUT = 0.1
"""Share of the labels left out in training a model that has a label for none."""
LEARNING_RATES = {
    "uno": 1e-3,
    "uno-s": 3e-4,
    "surgery": 1e-4,
    "surgery-ascent": 1e-4,
    "surgery-descent": 1e-4,
    "ascent": 1e-4,
    "ascent-descent": 1e-4,
    "orthogonal-ascent": 1e-4,
    "salun": 1e-4,
    "retain-descent": 1e-3,
    "esd-x": 1e-3,
    "esd-u": 5e-4,
}
"""Of Adam: with all parameters to move, other rates harmed the retained labels of a DiT."""


def redirect(
    model: diffusion.Diffusion,
    params: Any,
    retain: Any,
    forget: Any,
    *,
    exchange: int | Mapping[int, int] | None = None,
    trainable: str | None = None,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    anchor_weight: float = 4.0,
    unlabelled: float = 0.25,
    forgotten_share: float = 0.5,
    steps: int = 100,
) -> Job:
    r"""The forgotten label draws what another label draws, and all else stays.

    Both terms are mean squares of the distance to the original's own prediction,

    .. math:: \lambda\, |f_\theta(x_t, t, y) - f_0(x_t, t, y)|^2 \quad\text{and}\quad
      |f_\theta(x_t, t, y_f) - f_0(x_t, t, y_e)|^2

    with retained images under their label in the first, and images of the exchange label
    :math:`y_e` and forgotten ones under the forgotten label :math:`y_f` in the second. Some
    retained images of the first are shown without a label and ask for the prediction under
    their own: given :math:`x_t`, the mean over the images it can have come from is what a model
    without the forgotten ones would predict.

    Args:
      model: the network with its schedule; its parameters are not in it.
      params: parameters of the trained model.
      retain: what to keep, with labels, as `uno.forget` takes it.
      forget: what to forget, with one label or several, none of them in `retain`.
      exchange: the retained label that the forgotten one draws from then on; a dict for
        several. By default that of `nearest_labels`. Labels that are easily taken for each
        other remain so: on 8x8 digits 8, sent to 1, still drew 11 % eights without guidance,
        where the original's own 1 draws 6 %; sent to 6 it drew none.
      trainable: regular expression of the paths of the parameters that move. By default all
        but the tables that labels are looked up in, see `label_tables`: a label that only
        moves to another row is renamed, not forgotten.
      learning_rate: of Adam, at its highest: it rises for a tenth of the steps and then falls
        to zero as a cosine.
      batch_size: images in each of the two terms.
      anchor_weight: :math:`\lambda`, at least 0.
      unlabelled: share of the retained images shown without a label, if the model has a label
        for none; in [0, 1].
      forgotten_share: share of the images of the second term that are forgotten ones; in
        [0, 1). On 8x8 digits a half in place of none took what 8 drew of itself, when it went
        to 1, from 2.5 to 0.3 % with guidance and from 18 to 11 % without, at the same loss.
      steps: of Adam. With 50 steps of 64 images a small DiT on digits drew the label 1 in 0 %
        of 100 samples, and the nine others as before (experiments/results/dit).

    Returns:
      A `Job`. Its state holds the parameters that move twice, once as they were.

    Raises:
      ValueError: without labels, for labels or an exchange that do not fit, for options out of
        range.
    """
    check_options(learning_rate, batch_size, steps)
    if not anchor_weight >= 0:
        raise ValueError(f"anchor_weight: expected a number of at least 0, got {anchor_weight}.")
    if not 0 <= unlabelled <= 1:
        raise ValueError(f"unlabelled: expected a number in [0, 1], got {unlabelled}.")
    if not 0 <= forgotten_share < 1 or round(forgotten_share * batch_size) >= batch_size:
        raise ValueError(
            "forgotten_share: expected a number in [0, 1) that leaves images of the exchange, "
            f"got {forgotten_share}."
        )
    retain, forget = read_sides(retain, forget)
    _check_labelled("redirect", retain)
    pairs = exchange_labels(retain, forget, exchange)
    check_loss(diffusion.make_diffusion_loss(model), params, retain)
    tables = label_tables(model, params, retain.shape, max([*retain.labels, *forget.labels]))
    outputs = diffusion.outputs(model)

    def distance(params, original, images, shown, asked, key):
        noisy, times = _noised(model, images, key)
        target = jax.lax.stop_gradient(outputs(original, noisy, times, asked))
        return jnp.mean((outputs(params, noisy, times, shown) - target) ** 2)

    def anchor(params, original, batch, key):
        asked = shown = batch["label"]
        if model.null_label is not None:
            without = jnp.arange(len(asked)) < round(unlabelled * len(asked))
            shown = jnp.where(without, model.null_label, asked)
        return anchor_weight * distance(params, original, batch["image"], shown, asked, key)

    def redirected(params, original, batch, key):
        images, shown, asked = batch["image"], batch["shown"], batch["asked"]
        return distance(params, original, images, shown, asked, key)

    def streams(seed):
        own = round(forgotten_share * batch_size)
        others = [(other, label) for label, other in pairs.items()]
        redirects = retain.paired(others, batch_size - own, seed + 1).map(_ask_own)
        if own:
            forgotten = forget.paired(list(pairs.items()), own, seed + 2).map(_ask_other)
            redirects = joined(redirects, more=forgotten).map(_concatenated)
        return retain.batches(batch_size, seed), redirects

    return make_job(
        get_method("redirect-adam"),
        params,
        (anchor, redirected),
        streams,
        trainable=trainable if trainable is not None else (lambda path, leaf: path not in tables),
        learning_rate=_rise_and_fall(learning_rate, steps),
        steps=steps,
        cost=f"2 gradients and 2 predictions of the original of {batch_size} examples a step",
        with_original=True,
    )


def descend(
    name: str,
    model: diffusion.Diffusion,
    params: Any,
    retain: Any,
    forget: Any,
    *,
    exchange: int | Mapping[int, int] | None = None,
    trainable: str | None = None,
    learning_rate: float | None = None,
    batch_size: int = 64,
    label_dropout: float | None = None,
    steps: int = 100,
) -> Job:
    r"""A method that makes a direction of the gradients of the training loss on both sides.

    With labels, the retain loss holds that of the exchange,

    .. math:: L_r = L(x_r, y_r) + L(x_e, y_f)

    with images :math:`x_e` of the exchange label under the forgotten one; but that of
    `"retain-descent"`, the control, does so only if an exchange is given. Without labels both
    losses are the training loss alone.

    Args:
      name: one of `gradient.DESCENTS`; their formulas are in `uno.methods.METHODS`.
      model: as of `redirect`.
      params: as of `redirect`.
      retain: as of `redirect`, with labels or without.
      forget: as of `redirect`, likewise.
      exchange: as of `redirect`.
      trainable: regular expression of the paths of the parameters that move; all if `None`.
      learning_rate: of Adam; by default that of `LEARNING_RATES`. Methods that ascend have no
        minimum to go to: they destroy the model if they make too many steps.
      batch_size: images of each kind in a step.
      label_dropout: share of the labels left out in the losses, as in training; by default 0.1
        if the model has a label for none, else 0.
      steps: how many steps the job says it makes.

    Returns:
      A `Job`.

    Raises:
      ValueError: as `redirect`.
    """
    return _on_losses(
        name, model, params, retain, forget, exchange, trainable, learning_rate, batch_size,
        label_dropout, steps,
    )  # fmt: skip


def descend_with_penalty(
    name: str,
    model: diffusion.Diffusion,
    params: Any,
    retain: Any,
    forget: Any,
    *,
    exchange: int | Mapping[int, int] | None = None,
    trainable: str | None = None,
    learning_rate: float | None = None,
    batch_size: int = 64,
    label_dropout: float | None = None,
    weight: float = 1e-2,
    max_ratio: float | None = 1.0,
    hessian: str = "exact",
    steps: int = 100,
) -> Job:
    """UNO and UNO-S with the losses of `descend`.

    Args:
      name: `"uno"` or `"uno-s"`.
      model: as of `descend`.
      params: as of `descend`.
      retain: as of `descend`.
      forget: as of `descend`.
      exchange: as of `descend`.
      trainable: as of `descend`.
      learning_rate: as of `descend`.
      batch_size: as of `descend`.
      label_dropout: as of `descend`.
      weight: w, in units of the loss. The published one, for DiT-XL/2, is 0.02.
      max_ratio: bound of the penalty in lengths of the retain gradient, `None` for none.
      hessian: `"exact"` or `"finite-difference"`, see `uno.orthogonalize`.
      steps: as of `descend`.

    Returns:
      A `Job`.

    Raises:
      ValueError: as `redirect`.
    """
    return _on_losses(
        name, model, params, retain, forget, exchange, trainable, learning_rate, batch_size,
        label_dropout, steps, weight=weight, max_ratio=max_ratio, hessian=hessian,
    )  # fmt: skip


def relabel(
    model: diffusion.Diffusion,
    params: Any,
    retain: Any,
    forget: Any,
    *,
    exchange: int | Mapping[int, int] | None = None,
    trainable: str | None = None,
    learning_rate: float = 5e-4,
    batch_size: int = 64,
    label_dropout: float | None = None,
    steps: int = 100,
) -> Job:
    r"""SalUn: forgotten images ask for the prediction of another label; salient weights move.

    .. math:: L(x_r, y_r) + |f_\theta(x_t, t, y_f) - \text{sg}\, f_\theta(x_t, t, y_e)|^2

    with forgotten images in the second term. The half of the parameters moves whose gradient
    of the training loss on forgotten images is largest at the beginning.

    Args:
      model: as of `redirect`.
      params: as of `redirect`.
      retain: as of `redirect`.
      forget: as of `redirect`.
      exchange: as of `redirect`.
      trainable: as of `descend`.
      learning_rate: of Adam.
      batch_size: images of each kind in a step.
      label_dropout: as of `descend`.
      steps: how many steps the job says it makes.

    Returns:
      A `Job`.

    Raises:
      ValueError: as `redirect`.

    References:
      Fan et al., SalUn, arXiv 2310.12508.
    """
    check_options(learning_rate, batch_size, steps)
    retain, forget = read_sides(retain, forget)
    _check_labelled("salun-relabel", retain)
    pairs = exchange_labels(retain, forget, exchange)
    loss_fn = _training_loss(model, label_dropout)
    check_loss(loss_fn, params, retain)
    _check_range(model, params, retain, forget)
    outputs = diffusion.outputs(model)

    def with_relabelling(params, batch, key):
        own_key, other_key = jax.random.split(key)
        forgotten = batch["relabel"]
        relabelling = relabelling_loss(
            lambda part, key: _noised(model, part["image"], key),
            outputs,
            forgotten=forgotten["label"],
            exchange=forgotten[OTHER],
        )
        return loss_fn(params, batch, own_key) + relabelling(params, forgotten, other_key)

    def streams(seed):
        retained = retain.batches(batch_size, seed)
        relabelled = forget.paired(list(pairs.items()), batch_size, seed + 1)
        return joined(retained, relabel=relabelled), forget.batches(batch_size, seed + 2)

    row = get_method("salun-relabel")
    return make_job(
        row,
        params,
        (with_relabelling, loss_fn),
        streams,
        trainable=trainable,
        learning_rate=learning_rate,
        steps=steps,
        cost=f"3 gradients of {batch_size} examples a step",
    )


def erase(
    name: str,
    model: diffusion.Diffusion,
    params: Any,
    retain: Any,
    forget: Any,
    *,
    conditioning: str = CONDITIONING,
    trainable: str | None = None,
    learning_rate: float | None = None,
    batch_size: int = 64,
    guidance: float = 1.0,
    retaining: bool = True,
    sampling_steps: int = 10,
    label_dropout: float | None = None,
    steps: int = 100,
) -> Job:
    r"""ESD: the label's prediction is pushed away from what it was.

    .. math:: |f_\theta(x_t, t, y_f) - f_0(x_t, t, \varnothing)
      + \eta\, [f_0(x_t, t, y_f) - f_0(x_t, t, \varnothing)]|^2

    on what the model in training samples for the forgotten label. No image is used, but those
    of the retain loss.

    Args:
      name: `"esd-x"`, which moves the parameters that labels come in through, or `"esd-u"`,
        which moves the others.
      model: as of `redirect`, with a label for none.
      params: as of `redirect`.
      retain: as of `redirect`.
      forget: as of `redirect`; its labels alone are used.
      conditioning: regular expression of the paths of the parameters that labels come in
        through; the default is for the models of `uno_jax.models`.
      trainable: regular expression of the paths that may move beside; all if `None`.
      learning_rate: of Adam; by default that of `LEARNING_RATES`.
      batch_size: images of each kind in a step.
      guidance: :math:`\eta`, positive.
      retaining: whether the training loss on retained images is descended together with it.
        As published it is not, and the other labels suffer (experiments/results/dit_whole).
      sampling_steps: of the sampler that noisy images are taken from.
      label_dropout: as of `descend`.
      steps: how many steps the job says it makes.

    Returns:
      A `Job`.

    Raises:
      ValueError: as `redirect`; for a model without a label for none.

    References:
      Gandikota et al., Erasing concepts from diffusion models, arXiv 2303.07345.
    """
    rate = LEARNING_RATES[name] if learning_rate is None else learning_rate
    check_options(rate, batch_size, steps)
    if sampling_steps < 1:
        raise ValueError(f"sampling_steps: expected at least 1, got {sampling_steps}.")
    if model.null_label is None:
        raise ValueError(
            f"{name}: expected a model with a label for none, got null_label=None; without one "
            "there is no prediction to push the label to. Use method='redirect'."
        )
    retain, forget = read_sides(retain, forget)
    _check_labelled(name, retain)
    _check_disjoint(retain, forget)
    retain_loss = _training_loss(model, label_dropout)
    check_loss(retain_loss, params, retain)
    _check_range(model, params, retain, forget)
    row = get_method(name)
    if retaining:
        row = row._replace(direction=lambda setting: add_forget(1.0), descend="retain")

    def noisy_fn(params, batch, key):
        """What the model in training samples for the label, taken out on the way."""
        sample_key, stop_key = jax.random.split(key)
        labels = batch["label"]
        stop = jax.random.randint(stop_key, labels.shape, 0, sampling_steps)
        options = {"sampler": "ddim", "steps": sampling_steps, "stop": stop}
        noisy = diffusion.sample(model, params, sample_key, labels, retain.shape, **options)
        return noisy, diffusion.sampling_times(model.schedule, sampling_steps)[stop]

    def erasing(params, original, batch, key):
        loss_fn = erasing_loss(
            noisy_fn,
            diffusion.outputs(model),
            original,
            forgotten=batch["label"],
            null_label=model.null_label,
            guidance=guidance,
        )
        return loss_fn(params, batch, key)

    def retained(params, original, batch, key):
        del original
        return retain_loss(params, batch, key)

    def moves(path, leaf):
        del leaf
        inside = re.search(conditioning, path) is not None
        return inside == (row.moves == "conditioning") and re.search(trainable or "", path)

    paths = [trees.path_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    if not any(re.search(conditioning, path) for path in paths):
        raise ValueError(
            f"conditioning: expected {conditioning!r} to choose the parameters that labels come in "
            f"through, got none of {paths[:3]} ... {paths[-3:]}; give a regular expression."
        )

    def streams(seed):
        return retain.batches(batch_size, seed), forget.batches(batch_size, seed + 1)

    sampled = f"a sample in up to {sampling_steps} steps, 2 predictions of the original"
    return make_job(
        row,
        params,
        (retained, erasing),
        streams,
        trainable=moves,
        learning_rate=rate,
        steps=steps,
        cost=f"{2 if retaining else 1} gradients, {sampled} of {batch_size} examples a step",
        with_original=True,
    )


def exchange_labels(
    retain: Examples, forget: Examples, exchange: int | Mapping[int, int] | None
) -> dict[int, int]:
    """Says for each forgotten label which retained label comes in its place.

    Args:
      retain: what to keep, with labels.
      forget: what to forget, with labels.
      exchange: a retained label for all, a dict from forgotten to retained labels, or `None`
        for those of `nearest_labels`.

    Returns:
      From forgotten to retained labels.

    Raises:
      ValueError: if a label is on both sides, or the exchange is not from each forgotten to a
        retained label.

    Examples:
      >>> import numpy as np
      >>> from uno_jax.methods.diffusion import exchange_labels
      >>> from uno_jax.training.examples import read_examples
      >>> def side(name, *pixels):
      ...     images = np.array(pixels, np.float32)[:, None]
      ...     return read_examples({"image": images, "label": np.array(pixels)}, name)
      >>> exchange_labels(side("retain", 0, 5, 9), side("forget", 4), None)
      {4: 5}
    """
    _check_disjoint(retain, forget)
    if exchange is None:
        return nearest_labels(retain, forget)
    forgotten, retained = sorted(forget.labels), sorted(retain.labels)
    if isinstance(exchange, Mapping):
        pairs = {int(label): int(other) for label, other in exchange.items()}
    else:
        pairs = dict.fromkeys(forgotten, int(exchange))
    if sorted(pairs) != forgotten or not set(pairs.values()) <= set(retained):
        raise ValueError(
            f"exchange: expected a retained label ({_some(retained)}) for each forgotten one "
            f"({_some(forgotten)}), got {exchange!r}."
        )
    return pairs


def nearest_labels(retain: Examples, forget: Examples) -> dict[int, int]:
    """For each forgotten label the retained one whose mean image is nearest.

    The distance is the Euclidean one between the means of the images of the two labels. What is
    near asks for the smallest change of the model.

    Args:
      retain: what to keep, with labels.
      forget: what to forget, with labels.

    Returns:
      From forgotten to retained labels.
    """
    kept, gone = retain.means(), forget.means()

    def distance(label, other):
        return float(np.linalg.norm(gone[label] - kept[other]))

    return {label: min(sorted(kept), key=lambda k: distance(label, k)) for label in sorted(gone)}


def label_tables(
    model: diffusion.Diffusion, params: Any, shape: tuple[int, ...], largest: int
) -> set[str]:
    """Finds the parameters that labels are looked up in.

    A table is a parameter of which the output under label 0 depends on one row alone, and under
    label 1 on the next row alone.

    Args:
      model: the network with its schedule.
      params: its parameters.
      shape: of one image.
      largest: the largest label in use.

    Returns:
      Their paths; empty for a model that takes labels in another way.

    Raises:
      ValueError: if a table is found that has no row for the largest label. JAX does not say so:
        a row out of range is read as the last one, or as NaN.
    """
    noisy = jax.random.normal(jax.random.key(0), (1, *shape))
    steps = model.schedule.steps
    times = jnp.full(1, steps // 2) if steps else jnp.full(1, 0.5)
    subset = trainable_leaves(
        params, lambda path, leaf: jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
    )

    @jax.jit
    def touched(moving, frozen, label):
        def energy(moving):
            now = join(moving, frozen)
            return jnp.sum(diffusion.outputs(model)(now, noisy, times, label) ** 2)

        slopes = jax.tree_util.tree_flatten_with_path(jax.grad(energy)(moving))[0]
        return {
            trees.path_name(path): jnp.any(slope.reshape(len(slope), -1) != 0, axis=1)
            for path, slope in slopes
            if slope.ndim > 1
        }

    first, second = jax.device_get([touched(*subset, jnp.full(1, label)) for label in (0, 1)])
    tables = set()
    for path, rows in first.items():
        if rows.sum() != 1 or second[path].sum() != 1:
            continue
        if second[path].argmax() - rows.argmax() != 1:
            continue
        count = len(rows) - int(rows.argmax())
        if largest >= count:
            raise ValueError(
                f"label: expected labels below {count}, the rows of '{path}', got {largest}."
            )
        tables.add(path)
    return tables


def _on_losses(
    name, model, params, retain, forget, exchange, trainable, learning_rate, batch_size,
    label_dropout, steps, **setting,
) -> Job:  # fmt: skip
    rate = LEARNING_RATES[name] if learning_rate is None else learning_rate
    check_options(rate, batch_size, steps)
    retain, forget = read_sides(retain, forget)
    labelled = "label" in retain.keys
    row = get_method(name)
    if labelled:
        loss_fn = _training_loss(model, label_dropout)
        _check_disjoint(retain, forget)
    else:
        loss_fn = diffusion.make_diffusion_loss(model, conditional=False)
        if exchange is not None:
            raise ValueError(f"exchange: expected data with labels, got none for {exchange!r}.")
    check_loss(loss_fn, params, retain)
    retain_loss, others = loss_fn, None
    if labelled:
        _check_range(model, params, retain, forget)
        if exchange is not None or name != "retain-descent":
            pairs = exchange_labels(retain, forget, exchange)
            retain_loss = _with_exchange(loss_fn)
            others = [(other, label) for label, other in pairs.items()]

    def streams(seed) -> tuple[Batches, Batches]:
        retained = retain.batches(batch_size, seed)
        if others:
            retained = joined(retained, exchange=retain.paired(others, batch_size, seed + 1))
        return retained, forget.batches(batch_size, seed + 2)

    more = f", and 1 of {batch_size} of the exchange" if others else ""
    return make_job(
        row,
        params,
        (retain_loss, loss_fn),
        streams,
        trainable=trainable,
        learning_rate=rate,
        steps=steps,
        cost=cost_of(row, batch_size) + more,
        **setting,
    )


def _training_loss(model: diffusion.Diffusion, label_dropout: float | None) -> Callable:
    if label_dropout is None:
        label_dropout = 0.0 if model.null_label is None else LABEL_DROPOUT
    return diffusion.make_diffusion_loss(model, label_dropout=label_dropout)


def _with_exchange(loss_fn: Callable) -> Callable:
    def exchanged(params, batch, key):
        own_key, other_key = jax.random.split(key)
        other = {"image": batch["exchange"]["image"], "label": batch["exchange"][OTHER]}
        return loss_fn(params, batch, own_key) + loss_fn(params, other, other_key)

    return exchanged


def _noised(model: diffusion.Diffusion, images: jax.Array, key: jax.Array):
    """Images with noise of uniform times, and the times."""
    time_key, noise_key = jax.random.split(key)
    images = images.astype(jnp.float32)
    times = diffusion.draw_times(model.schedule, time_key, len(images))
    noise = jax.random.normal(noise_key, images.shape)
    return diffusion.add_noise(model.schedule, images, times, noise), times


def _ask_own(batch: dict) -> dict:
    """Images that are shown under another label, and ask for the prediction under their own."""
    return {"image": batch["image"], "shown": batch[OTHER], "asked": batch["label"]}


def _ask_other(batch: dict) -> dict:
    """Images that are shown under their label, and ask for the prediction under another."""
    return {"image": batch["image"], "shown": batch["label"], "asked": batch[OTHER]}


def _concatenated(batch: dict) -> dict:
    more = batch.pop("more")
    return {name: np.concatenate([value, more[name]]) for name, value in batch.items()}


def _rise_and_fall(rate: float, steps: int) -> optax.Schedule:
    return optax.warmup_cosine_decay_schedule(0.0, rate, max(1, steps // 10), steps + 1)


def _check_labelled(name: str, retain: Examples) -> None:
    if "label" not in retain.keys:
        raise ValueError(
            f"{name}: expected data with labels on both sides, got none; it sends a label to "
            "another one. A diffusion model without labels can run the gradient methods, such as "
            "method='uno' or method='surgery'."
        )


def _check_disjoint(retain: Examples, forget: Examples) -> None:
    if both := sorted(retain.labels.keys() & forget.labels.keys()):
        raise ValueError(
            f"forget: expected labels that are not in retain, got {_some(both)} in both; a "
            "conditional model forgets a label as a whole: take its other images out of retain."
        )


def _check_range(
    model: diffusion.Diffusion, params: Any, retain: Examples, forget: Examples
) -> None:
    label_tables(model, params, retain.shape, max([*retain.labels, *forget.labels]))


def _some(labels: list[int]) -> str:
    shown = ", ".join(map(str, labels[:10]))
    return shown if len(labels) <= 10 else f"{shown} and {len(labels) - 10} more"
