"""The losses that train a diffusion model."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from uno_jax.diffusion.denoising import (
    Diffusion,
    add_noise,
    along,
    check,
    mean_part,
    output,
    target,
)
from uno_jax.diffusion.schedules import draw_times


def make_diffusion_loss(
    diffusion: Diffusion, *, conditional: bool = True, label_dropout: float = 0.0
) -> Callable:
    r"""Builds the mean squared error of what the network predicts.

    .. math:: \mathbb{E}_{t, \epsilon}\, \tfrac1D |f_\theta(x_t, t, y) - \text{target}|^2

    With `learned_variance`, plus the variational bound of a reverse step in bits per
    dimension, in which the mean carries no gradient.

    Args:
      diffusion: of the model.
      conditional: whether images go with their labels; if not, with the null label (0
        for a model without one).
      label_dropout: probability of the null label in a label's place, for
        classifier-free guidance; in [0, 1).

    Returns:
      `loss_fn(params, batch, key) -> scalar`, float32, with `batch["image"]` (N, ..., C)
      and, if conditional, `batch["label"]` (N,) int.

    Raises:
      ValueError: if the arguments do not go together.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from uno_jax import diffusion
      >>> apply_fn = lambda params, noisy, times, labels: params * noisy
      >>> process = diffusion.Diffusion(apply_fn, diffusion.linear())
      >>> loss_fn = diffusion.make_diffusion_loss(process)
      >>> batch = {"image": jnp.zeros((4, 2, 2, 1)), "label": jnp.zeros(4, jnp.int32)}
      >>> bool(loss_fn(jnp.ones(()), batch, jax.random.key(0)) < 1)
      True

    References:
      Ho et al., arXiv 2006.11239, equation 14; Nichol and Dhariwal, arXiv 2102.09672,
      equation 16; Lipman et al., arXiv 2210.02747.
    """
    check(diffusion)
    if not 0 <= label_dropout < 1:
        raise ValueError(f"label_dropout: expected a number in [0, 1), got {label_dropout}.")
    if label_dropout and diffusion.null_label is None:
        raise ValueError("label_dropout: expected a model with a null label, got null_label=None.")

    def loss_fn(params, batch, key):
        images = batch["image"].astype(jnp.float32)
        count = images.shape[0]
        time_key, noise_key, drop_key = jax.random.split(key, 3)
        times = draw_times(diffusion.schedule, time_key, count)
        noise = jax.random.normal(noise_key, images.shape)
        none = 0 if diffusion.null_label is None else diffusion.null_label
        labels = batch["label"] if conditional else jnp.full(count, none)
        if conditional and label_dropout:
            labels = jnp.where(
                jax.random.bernoulli(drop_key, label_dropout, (count,)), none, labels
            )
        noisy = add_noise(diffusion.schedule, images, times, noise)
        result = output(diffusion, params, noisy, times, labels)
        error = mean_part(diffusion, result) - target(diffusion, images, noise, times)
        loss = jnp.mean(error**2)
        if diffusion.learned_variance:
            loss += jnp.mean(variational_bound(diffusion, result, images, noisy, times))
        return loss

    return loss_fn


def reverse_step(schedule, times: jax.Array, like: jax.Array):
    """Bounds and weights of a reverse step by one time of a discrete schedule.

    Args:
      schedule: discrete.
      times: (N,) int.
      like: (N, ...), for the axes.

    Returns:
      The weight of the clean image and of the noisy one in the posterior mean, and the
      log of the smaller and of the larger variance. At time 0, where the smaller is 0,
      it is that of time 1, as published.
    """
    previous = jnp.maximum(times - 1, 0)
    first = times == 0
    signal, sigma = schedule.signal(times), schedule.noise(times)
    before = jnp.where(first, 1.0, schedule.signal(previous))
    sigma_before = jnp.where(first, 0.0, schedule.noise(previous))
    ratio = signal / before
    large = 1.0 - ratio**2
    image_weight = before * large / sigma**2
    noisy_weight = ratio * sigma_before**2 / sigma**2
    one = jnp.minimum(1, schedule.steps - 1)
    at_one = (1.0 - (schedule.signal(one) / schedule.signal(0)) ** 2) * (
        schedule.noise(0) / schedule.noise(one)
    ) ** 2
    small = jnp.where(first, at_one, large * sigma_before**2 / sigma**2)
    values = image_weight, noisy_weight, jnp.log(small), jnp.log(large)
    return tuple(along(value, like) for value in values)


def variational_bound(diffusion: Diffusion, result, images, noisy, times) -> jax.Array:
    r"""One term of the variational bound, which trains the variances alone.

    .. math:: \text{KL}(q(x_{t-1} | x_t, x_0) \,\|\, p_\theta(x_{t-1} | x_t)), \quad
      \log \Sigma_\theta = v \log\beta_t + (1 - v) \log\tilde\beta_t

    and, at time 0, minus the log likelihood of the image in bins of 1/255 of [-1, 1].

    Args:
      diffusion: with `learned_variance`.
      result: (N, ..., 2C) output of the network.
      images: (N, ..., C) clean.
      noisy: (N, ..., C).
      times: (N,) int.

    Returns:
      (N,) float32, bits per dimension.

    References:
      Nichol and Dhariwal, Improved DDPM, arXiv 2102.09672, equations 4 to 7 and 15.
    """
    image_weight, noisy_weight, log_small, log_large = reverse_step(
        diffusion.schedule, times, images
    )
    mean, variance = jnp.split(result, 2, axis=-1)
    mean = jax.lax.stop_gradient(mean)
    share = 0.5 * (variance + 1.0)
    log_variance = share * log_large + (1.0 - share) * log_small
    signal = along(diffusion.schedule.signal(times), images)
    sigma = along(diffusion.schedule.noise(times), images)
    if diffusion.prediction == "noise":
        clean = (noisy - sigma * mean) / signal
    else:
        clean = signal * noisy - sigma * mean
    predicted = image_weight * clean + noisy_weight * noisy
    true = image_weight * images + noisy_weight * noisy
    divergence = 0.5 * (
        log_variance
        - log_small
        - 1.0
        + jnp.exp(log_small - log_variance)
        + (true - predicted) ** 2 * jnp.exp(-log_variance)
    )
    last = -_binned_log_likelihood(images, predicted, 0.5 * log_variance)
    terms = jnp.where(along(times == 0, images), last, divergence)
    return jnp.mean(terms.reshape(terms.shape[0], -1), axis=-1) / jnp.log(2.0)


def _binned_log_likelihood(images, mean, log_scale):
    """Log probability of the bin of width 2/255 around each pixel, the outer ones open."""

    def below(x):
        return jax.scipy.special.ndtr((x - mean) * jnp.exp(-log_scale))

    low, high = below(images - 1.0 / 255.0), below(images + 1.0 / 255.0)
    low = jnp.where(images < -0.999, 0.0, low)
    high = jnp.where(images > 0.999, 1.0, high)
    return jnp.log(jnp.maximum(high - low, 1e-12))
