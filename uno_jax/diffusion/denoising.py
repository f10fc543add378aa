"""What a network predicts, and the clean image and the noise that follow from it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from uno_jax.diffusion.schedules import Schedule

PREDICTIONS = ("noise", "v", "velocity")


class Diffusion(NamedTuple):
    """What a loss and a sampler need to know of a model; parameters are not in it.

    Attributes:
      apply_fn: `apply_fn(params, noisy, times, labels) -> output`, noisy (N, ..., C),
        times (N,) as `Schedule.model_times` gives them, labels (N,) int; output like
        noisy, or (N, ..., 2C) with `learned_variance`.
      schedule: the marginals.
      prediction: what the output is: `"noise"`; `"v"`, of a schedule with
        signal² + noise² = 1; `"velocity"`, noise minus image, of the straight path.
      learned_variance: whether the second half of the output's channels says where the
        variance of a reverse step lies between its bounds; discrete schedules alone.
      null_label: the label that stands for none, `None` if the model has no such label.
    """

    apply_fn: Callable
    schedule: Schedule
    prediction: str = "noise"
    learned_variance: bool = False
    null_label: int | None = None


class Denoised(NamedTuple):
    """A noisy image, taken apart.

    Attributes:
      image: the clean image expected, like the noisy one, float32.
      noise: the noise that goes with it.
      variance: of a reverse step: 0 where it is the smaller bound, 1 where the larger
        one; 0 for a model that does not learn it.
    """

    image: jax.Array
    noise: jax.Array
    variance: jax.Array


def along(values: jax.Array, like: jax.Array) -> jax.Array:
    """Returns (N,) values with the axes of (N, ...) `like`."""
    return jnp.reshape(values, (-1,) + (1,) * (like.ndim - 1))


def check(diffusion: Diffusion) -> None:
    """Raises unless prediction, schedule and variance go together.

    Raises:
      ValueError: saying what was expected.
    """
    if diffusion.prediction not in PREDICTIONS:
        raise ValueError(
            f"prediction: expected one of {PREDICTIONS}, got {diffusion.prediction!r}."
        )
    if diffusion.learned_variance and not diffusion.schedule.steps:
        raise ValueError("learned_variance: expected a discrete schedule, got a continuous one.")


def add_noise(schedule: Schedule, images: jax.Array, times: jax.Array, noise: jax.Array):
    r"""Returns :math:`\alpha_t x + \sigma_t \epsilon`.

    Args:
      schedule: the marginals.
      images: (N, ...).
      times: (N,).
      noise: like `images`, standard normal.

    Returns:
      An array like `images`.
    """
    signal, sigma = schedule.signal(times), schedule.noise(times)
    return along(signal, images) * images + along(sigma, images) * noise


def target(diffusion: Diffusion, images: jax.Array, noise: jax.Array, times: jax.Array):
    r"""What the network ought to predict: :math:`\epsilon`, :math:`\alpha\epsilon - \sigma x`
    or :math:`\epsilon - x`.

    Args:
      diffusion: says which.
      images: (N, ...) clean.
      noise: like `images`.
      times: (N,).

    Returns:
      An array like `images`.
    """  # noqa: D205
    if diffusion.prediction == "noise":
        return noise
    if diffusion.prediction == "velocity":
        return noise - images
    signal, sigma = diffusion.schedule.signal(times), diffusion.schedule.noise(times)
    return along(signal, images) * noise - along(sigma, images) * images


def output(diffusion: Diffusion, params, noisy, times, labels) -> jax.Array:
    """Calls the network, with times as it takes them; float32."""
    times = jnp.broadcast_to(times, noisy.shape[:1])
    result = diffusion.apply_fn(params, noisy, diffusion.schedule.model_times(times), labels)
    return result.astype(jnp.float32)


def outputs(diffusion: Diffusion) -> Callable:
    """Returns `outputs_fn(params, noisy, times, labels)`, the prediction without variances."""

    def outputs_fn(params, noisy, times, labels):
        return mean_part(diffusion, output(diffusion, params, noisy, times, labels))

    return outputs_fn


def mean_part(diffusion: Diffusion, result: jax.Array) -> jax.Array:
    """The output without its channels of variance."""
    return jnp.split(result, 2, axis=-1)[0] if diffusion.learned_variance else result


def guided_output(diffusion: Diffusion, params, noisy, times, labels, guidance) -> jax.Array:
    r"""The output under classifier-free guidance.

    .. math:: o_\varnothing + s\,(o_y - o_\varnothing)

    Both are computed in one call of twice the batch. Variances are those of the label.

    Args:
      diffusion: of the model; its `null_label` is needed unless `guidance` is 1.
      params: of the model.
      noisy: (N, ..., C).
      times: (N,) or a scalar.
      labels: (N,) int.
      guidance: s; 1 is the conditional model and costs one pass.

    Returns:
      The output, float32.

    Raises:
      ValueError: for guidance without a null label.

    References:
      Ho and Salimans, Classifier-free diffusion guidance, arXiv 2207.12598.
    """
    if isinstance(guidance, (int, float)) and guidance == 1:
        return output(diffusion, params, noisy, times, labels)
    if diffusion.null_label is None:
        raise ValueError("guidance: expected a model with a null label, got null_label=None.")
    times = jnp.broadcast_to(times, noisy.shape[:1])
    both = output(
        diffusion,
        params,
        jnp.concatenate([noisy, noisy]),
        jnp.concatenate([times, times]),
        jnp.concatenate([labels, jnp.full_like(labels, diffusion.null_label)]),
    )
    conditional, without = jnp.split(both, 2)
    mean, mean_without = (mean_part(diffusion, x) for x in (conditional, without))
    guided = mean_without + guidance * (mean - mean_without)
    if not diffusion.learned_variance:
        return guided
    return jnp.concatenate([guided, conditional[..., guided.shape[-1] :]], axis=-1)


def denoise(
    diffusion: Diffusion, params, noisy, times, labels, *, guidance: float = 1.0, clip=None
) -> Denoised:
    """Takes noisy images apart into image and noise.

    Args:
      diffusion: of the model.
      params: of the model.
      noisy: (N, ..., C).
      times: (N,) or a scalar.
      labels: (N,) int.
      guidance: of classifier-free guidance, 1 for none.
      clip: (low, high) that images are known to lie in, or `None`.

    Returns:
      A `Denoised`.

    Raises:
      ValueError: as `check` and `guided_output`.
    """
    check(diffusion)
    result = guided_output(diffusion, params, noisy, times, labels, guidance)
    mean = mean_part(diffusion, result)
    schedule = diffusion.schedule
    signal, sigma = (along(f(times), noisy) for f in (schedule.signal, schedule.noise))
    noisy = noisy.astype(jnp.float32)
    if diffusion.prediction == "noise":
        image, noise = (noisy - sigma * mean) / signal, mean
    elif diffusion.prediction == "v":
        image, noise = signal * noisy - sigma * mean, sigma * noisy + signal * mean
    else:
        image, noise = noisy - sigma * mean, noisy + signal * mean
    if clip is not None:
        image = jnp.clip(image, *clip)
        noise = (noisy - signal * image) / jnp.maximum(sigma, 1e-6)
    variance = jnp.zeros_like(mean)
    if diffusion.learned_variance:
        variance = 0.5 * (jnp.split(result, 2, axis=-1)[1] + 1.0)
    return Denoised(image, noise, variance)
