"""The redirect for a conditional diffusion model: what each label shall predict."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import uno_jax as uno
from uno_jax import diffusion


class Options(NamedTuple):
    """How the redirect is made.

    Attributes:
      trainable: regular expression of the parameters that move. The table of labels is
        not among them: to give the forgotten label another row would be enough for the
        label, and the old row would bring everything back.
      retain_size: examples per retain batch; half of them for the line search.
      forget_size: examples per forget batch; half of them for the line search.
      anchor_weight: λ of what must not move.
      pool: most retained images that the retained denoiser is made of.
    """

    trainable: str = "^(?!label/)"
    retain_size: int = 64
    forget_size: int = 64
    anchor_weight: float = 1.0
    pool: int = 4000


def terms(process: diffusion.Diffusion, frozen: Any, options: Options):
    """Returns the anchor and the redirect term.

    Both ask for the predictions `batch["targets"]` at `batch["noisy"]`, `batch["times"]`
    and `batch["labels"]`.

    Args:
      process: the diffusion around the network.
      frozen: the parameters that do not move.
      options: of the redirect.

    Returns:
      (retain term, forget term) for `uno.make_matching_step`.
    """
    outputs = diffusion.outputs(process)

    def outputs_fn(params, batch, key):
        del key
        params = uno.join(params, frozen)
        return outputs(params, batch["noisy"], batch["times"], batch["labels"])

    def target_fn(batch, key):
        del key
        return batch["targets"]

    family = uno.gaussian()
    return (
        uno.match(outputs_fn, target_fn, family, weight=options.anchor_weight),
        uno.match(outputs_fn, target_fn, family),
    )


def streams(model, options: Options, seed: int) -> tuple[Iterator[dict], Iterator[dict]]:
    r"""Makes the batches of both sides with their targets, from the original model alone.

    Of a retain batch, half asks for the original's prediction under the images' labels.
    Of a forget batch, half shows images of the forgotten and of the exchange class under
    the forgotten label, and asks for the original's prediction under the exchange label.

    The other halves have the null label and ask for the retained denoiser. The original's
    unconditional prediction is about :math:`\sum_y p(y | x_t) f_0(x_t, t, y)`. Without the
    forgotten class it is the mean over the retained labels alone, of which one is drawn:
    that of a retained image n drawn with :math:`p(n | x_t) \propto
    \exp(-|x_t - \alpha_t x_n|^2 / 2 \sigma_t^2)`, the posterior of the retained data.

    A model without a null label has no such halves.

    Args:
      model: see `dit_methods.Model`.
      options: of the redirect.
      seed: of order and noise.

    Returns:
      The retain and the forget iterator, endless.
    """
    rows = np.random.default_rng(seed).permutation(model.rows("retain"))[: options.pool]
    make = partial(
        _targets(model), model.original, jnp.asarray(model.images[rows]), model.labels[rows]
    )
    shared = model.process.null_label is not None

    def side(names, sizes, offset):
        parts = [
            model.stream(name, batch_size=size, seed=seed + offset + i)
            for i, (name, size) in enumerate(zip(names, sizes, strict=True))
        ]
        for number, batches in enumerate(zip(*parts, strict=False)):
            key = jax.random.fold_in(jax.random.key(seed + offset), number)
            yield make(batches, key)

    def retain():
        size = options.retain_size
        if shared:
            return side(("retain", "retain"), (size // 2, size - size // 2), 0)
        return side(("retain",), (size,), 0)

    def forget():
        size = options.forget_size
        if shared:
            quarter = size // 4
            names = ("exchange", "forget", "forget")
            return side(names, (quarter, quarter, size - 2 * quarter), 10)
        return side(("exchange", "forget"), (size // 2, size - size // 2), 10)

    return retain(), forget()


def _targets(model) -> Callable:
    process, forgotten, exchange = model.process, model.forgotten, model.exchange
    outputs = diffusion.outputs(process)
    schedule, null_label = process.schedule, process.null_label
    labels = int(model.labels.max()) + 1

    def posterior_labels(noisy, times, pool, pool_labels, key):
        signal, sigma = schedule.signal(times)[:, None], schedule.noise(times)[:, None]
        x, n = noisy.reshape(len(noisy), -1), pool.reshape(len(pool), -1)
        # |x|² is the same for all n.
        distances = signal**2 * jnp.sum(n**2, axis=1) - 2 * signal * (x @ n.T)
        logits = -distances / (2 * jnp.maximum(sigma, 1e-3) ** 2)
        return pool_labels[jax.random.categorical(key, logits)]

    @jax.jit
    def make(original, pool, pool_labels, batches, key):
        *own, last = batches if null_label is not None else (*batches, None)
        images = jnp.concatenate([batch["image"] for batch in batches])
        keys = jax.random.split(key, 5)
        times = diffusion.draw_times(schedule, keys[0], len(images))
        noise = jax.random.normal(keys[1], images.shape)
        noisy = diffusion.add_noise(schedule, images, times, noise)
        shown = jnp.concatenate([batch["label"] for batch in own])
        if len(own) > 1:
            shown = jnp.full_like(shown, forgotten)
        if len(own) == 1:
            # Guided samples also pass where one label meets the images of another.
            other = (forgotten + jax.random.randint(keys[4], shown.shape, 1, labels)) % labels
            shown = jnp.where(jnp.arange(len(shown)) % 2, shown, other)
        asked = jnp.where(shown == forgotten, exchange, shown)
        if last is not None:
            rest = len(last["label"])
            drawn = posterior_labels(noisy[-rest:], times[-rest:], pool, pool_labels, keys[2])
            shown = jnp.concatenate([shown, jnp.full(rest, null_label)])
            asked = jnp.concatenate([asked, drawn])
        # The halves of a batch go to the gradient and to the line search: mix them.
        batch = {
            "noisy": noisy,
            "times": times,
            "labels": shown,
            "targets": outputs(original, noisy, times, asked),
        }
        order = jax.random.permutation(keys[3], len(images))
        return jax.tree.map(lambda array: array[order], batch)

    return make
