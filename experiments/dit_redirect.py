"""The redirect of a conditional diffusion model: the forgotten label draws the exchange class."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uno_jax import diffusion


class Options(NamedTuple):
    """How the redirect is run.

    Attributes:
      trainable: regular expression of the parameters that move. The table of labels is
        better left: a label that only moves to another row is renamed, not forgotten.
      anchor_weight: λ, of the term that keeps what the original predicts elsewhere.
      unlabelled: fraction of the retained images (not of those replayed) shown without a
        label, if the model knows none.
    """

    trainable: str = "^(?!label/)"
    anchor_weight: float = 4.0
    unlabelled: float = 0.25


def losses(process: diffusion.Diffusion, options: Options):
    r"""Returns the two losses that the redirect descends together.

    Both are mean squares of the distance to the original's own prediction,

    .. math:: \lambda\, |f_\theta(x_t, t, y) - f_0(x_t, t, y)|^2 \quad\text{and}\quad
      |f_\theta(x_t, t, y_f) - f_0(x_t, t, y_e)|^2

    with retained images under their label in the first, and images of the exchange class
    under the forgotten label in the second. Some retained images of the first are shown
    without a label and ask for the prediction under their own: given :math:`x_t`, the mean
    over the images it can have come from is the retained denoiser. Images of the forgotten
    class are nowhere: where samples leave for other classes from the noise on, none comes
    near them.

    Args:
      process: the diffusion around the network.
      options: of the redirect.

    Returns:
      (anchor, redirect), each `loss_fn(params, batch, key) -> scalar` of the batches that
      `streams` makes.
    """
    outputs = diffusion.outputs(process)

    def distance(params, batch, key):
        del key
        predicted = outputs(params, batch["noisy"], batch["times"], batch["labels"])
        return jnp.mean((predicted - batch["targets"]) ** 2)

    def anchor(params, batch, key):
        return options.anchor_weight * distance(params, batch, key)

    return anchor, distance


def streams(
    model: Any, retain: Iterable[dict], exchange: Iterable[dict], *, unlabelled: int, seed: int
) -> tuple[Iterator[dict], Iterator[dict]]:
    """Adds noise and the original's predictions to batches of images.

    Args:
      model: see `dit_methods.Model`.
      retain: batches to keep.
      exchange: batches of the exchange class.
      unlabelled: how many images of a retain batch, its first, are shown without a label.
      seed: of the noise.

    Returns:
      The batches of the anchor and of the redirect.
    """
    process, forgotten, exchange_label = model.process, model.forgotten, model.exchange
    outputs = diffusion.outputs(process)

    @jax.jit
    def noised(original, images, shown, asked, key):
        time_key, noise_key = jax.random.split(key)
        times = diffusion.draw_times(process.schedule, time_key, len(images))
        noise = jax.random.normal(noise_key, images.shape)
        noisy = diffusion.add_noise(process.schedule, images, times, noise)
        targets = outputs(original, noisy, times, asked)
        return {"noisy": noisy, "times": times, "labels": shown, "targets": targets}

    def anchors():
        for number, batch in enumerate(retain):
            key = jax.random.fold_in(jax.random.key(seed), number)
            asked = np.asarray(batch["label"])
            shown = asked.copy()
            shown[:unlabelled] = process.null_label
            yield noised(model.original, batch["image"], shown, asked, key)

    def redirects():
        for number, batch in enumerate(exchange):
            key = jax.random.fold_in(jax.random.key(seed + 1), number)
            shown, asked = (
                jnp.full(len(batch["label"]), label) for label in (forgotten, exchange_label)
            )
            yield noised(model.original, batch["image"], shown, asked, key)

    return anchors(), redirects()
