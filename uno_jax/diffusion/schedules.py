"""How much of an image is left, and how much noise is in it, at each time."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Schedule(NamedTuple):
    r"""The marginals :math:`x_t = \alpha_t x_0 + \sigma_t \epsilon` of a diffusion.

    Attributes:
      signal: from times to :math:`\alpha_t`, in [0, 1].
      noise: from times to :math:`\sigma_t`, in [0, 1].
      steps: number of times of a discrete schedule, which are the integers 0 (least
        noise) to `steps` - 1; `None` for a continuous one, whose times are in [0, 1].
    """

    signal: Callable[[jax.Array], jax.Array]
    noise: Callable[[jax.Array], jax.Array]
    steps: int | None

    def model_times(self, times: jax.Array) -> jax.Array:
        """Times as a model takes them: the integers, or 1000 t of a continuous schedule."""
        return times if self.steps else 1000.0 * times


def _discrete(betas: np.ndarray) -> Schedule:
    # In float64: the product of a thousand factors near one.
    kept = np.cumprod(1.0 - betas)
    signal = np.sqrt(kept).astype(np.float32)
    noise = np.sqrt(1.0 - kept).astype(np.float32)
    return Schedule(
        lambda t: jnp.asarray(signal)[t], lambda t: jnp.asarray(noise)[t], steps=len(betas)
    )


def linear(steps: int = 1000, *, first: float = 1e-4, last: float = 0.02) -> Schedule:
    r"""Noise variances that grow linearly.

    .. math:: \alpha_t^2 = \prod_{s \le t} (1 - \beta_s), \quad \sigma_t^2 = 1 - \alpha_t^2

    Args:
      steps: number of times, at least 1.
      first: :math:`\beta` of the first step, in (0, 1).
      last: :math:`\beta` of the last step, in (0, 1).

    Returns:
      A discrete `Schedule`.

    Raises:
      ValueError: for numbers out of range.

    Examples:
      >>> from uno_jax import diffusion
      >>> diffusion.linear().signal(999).round(4)
      Array(0.0064, dtype=float32)

    References:
      Ho et al., Denoising diffusion probabilistic models, arXiv 2006.11239.
    """
    if steps < 1 or not 0 < first < 1 or not 0 < last < 1:
        raise ValueError(
            f"linear: expected steps >= 1 and variances in (0, 1), got {steps}, {first}, {last}."
        )
    return _discrete(np.linspace(first, last, steps, dtype=np.float64))


def cosine(steps: int = 1000, *, offset: float = 0.008) -> Schedule:
    r"""The cosine schedule.

    .. math:: \alpha_t^2 = f(t) / f(0), \quad
      f(t) = \cos^2\!\Big(\frac{t / T + s}{1 + s} \frac{\pi}{2}\Big), \quad \beta_t \le 0.999

    Args:
      steps: number of times T, at least 1.
      offset: s, positive.

    Returns:
      A discrete `Schedule`.

    Raises:
      ValueError: for numbers out of range.

    References:
      Nichol and Dhariwal, Improved DDPM, arXiv 2102.09672, equation 17.
    """
    if steps < 1 or not offset > 0:
        raise ValueError(f"cosine: expected steps >= 1 and offset > 0, got {steps}, {offset}.")
    f = np.cos((np.arange(steps + 1) / steps + offset) / (1 + offset) * np.pi / 2) ** 2
    return _discrete(np.minimum(1.0 - f[1:] / f[:-1], 0.999))


def continuous_cosine() -> Schedule:
    r"""Continuous time, :math:`\alpha_t = \cos(\pi t / 2), \sigma_t = \sin(\pi t / 2)`.

    Returns:
      A continuous `Schedule`.

    References:
      Salimans and Ho, Progressive distillation, arXiv 2202.00512.
    """
    half_pi = 0.5 * jnp.pi
    return Schedule(
        # In float32 the cosine of pi / 2 is below 0, where the log SNR has no value.
        lambda t: jnp.maximum(jnp.cos(half_pi * jnp.asarray(t)), 0.0),
        lambda t: jnp.sin(half_pi * jnp.asarray(t)),
        steps=None,
    )


def straight() -> Schedule:
    r"""The straight path of flow matching, :math:`\alpha_t = 1 - t, \sigma_t = t`.

    Returns:
      A continuous `Schedule`, for `prediction="velocity"`.

    References:
      Lipman et al., Flow matching, arXiv 2210.02747; Liu et al., arXiv 2209.03003.
    """
    return Schedule(lambda t: 1.0 - jnp.asarray(t), lambda t: jnp.asarray(t), steps=None)


def draw_times(schedule: Schedule, key: jax.Array, count: int) -> jax.Array:
    """Uniform times, as a loss wants them.

    Args:
      schedule: discrete or continuous.
      key: a PRNG key.
      count: how many.

    Returns:
      (count,) int32 in 0..steps-1, or float32 in [0, 1).
    """
    if schedule.steps:
        return jax.random.randint(key, (count,), 0, schedule.steps)
    return jax.random.uniform(key, (count,))


def sampling_times(schedule: Schedule, count: int) -> jax.Array:
    """Times from the most noise to the least, evenly spaced.

    Behind the last of them comes the clean image, which is no time of a schedule.

    Args:
      schedule: discrete or continuous.
      count: how many, at least 1 and at most `schedule.steps`.

    Returns:
      (count,) int32 or float32, falling.

    Raises:
      ValueError: if there are not so many.
    """
    if count < 1 or (schedule.steps and count > schedule.steps):
        raise ValueError(
            f"sampling_times: expected 1 to {schedule.steps or 'any number of'} times, got {count}."
        )
    if schedule.steps:
        # Falling from the last time; with a single step it is the last time alone.
        times = np.round((schedule.steps - 1) * (1.0 - np.arange(count) / max(count - 1, 1)))
        return jnp.asarray(times, jnp.int32)
    return jnp.asarray(1.0 - np.arange(count) / count, jnp.float32)
