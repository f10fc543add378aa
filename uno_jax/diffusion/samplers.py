"""Samplers: DDPM, DDIM and DPM-Solver++(2M), each one scan over the times."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from uno_jax.diffusion.denoising import Denoised, Diffusion, along, denoise
from uno_jax.diffusion.schedules import Schedule, sampling_times

SAMPLERS = ("ddpm", "ddim", "dpm")


def run(
    denoise_fn: Callable[[jax.Array, jax.Array], Denoised],
    schedule: Schedule,
    start: jax.Array,
    key: jax.Array,
    *,
    sampler: str = "dpm",
    steps: int = 25,
    eta: float = 0.0,
    stop: jax.Array | None = None,
) -> jax.Array:
    r"""Goes from noise to an image, given any denoiser.

    One step from time t to the next time s, with :math:`\hat x, \hat\epsilon` the denoiser's:

    - `"ddpm"`: a draw from :math:`q(x_s | x_t, \hat x)`, also when times are skipped;
      its variance lies between the bounds where `Denoised.variance` says.
    - `"ddim"`: :math:`\alpha_s \hat x + \sqrt{\sigma_s^2 - \eta^2 \tilde\beta}\, \hat\epsilon
      + \eta \sqrt{\tilde\beta}\, z`.
    - `"dpm"`: DPM-Solver++ of second order with the previous step's image, first order
      in the first and in the last step.

    Args:
      denoise_fn: `denoise_fn(noisy, time) -> Denoised`, time a scalar.
      schedule: the marginals.
      start: (N, ...) standard normal noise.
      key: a PRNG key; `"dpm"` and `"ddim"` with `eta=0` do not use it.
      sampler: `"ddpm"`, `"ddim"` or `"dpm"`.
      steps: number of times, evenly spaced.
      eta: randomness of DDIM, 0 for none and 1 for that of DDPM.
      stop: (N,) int, how many of the steps each example makes; `None` for all. An example
        that stops after k < `steps` is a noisy one of time `sampling_times(...)[k]`.

    Returns:
      (N, ...) float32.

    Raises:
      ValueError: for an unknown sampler or a number of steps out of range.

    References:
      Ho et al., arXiv 2006.11239, equation 7; Song et al., DDIM, arXiv 2010.02502,
      equation 12; Lu et al., DPM-Solver++, arXiv 2211.01095, algorithm 2.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler: expected one of {SAMPLERS}, got {sampler!r}.")
    times = sampling_times(schedule, steps)
    signals, sigmas = (
        jnp.asarray(f(times), jnp.float32) for f in (schedule.signal, schedule.noise)
    )
    # Behind the last time comes the clean image.
    next_signals = jnp.append(signals[1:], 1.0)
    next_sigmas = jnp.append(sigmas[1:], 0.0)
    keys = jax.random.split(key, steps)
    advance = {"ddpm": _ddpm, "ddim": _ddim(eta), "dpm": _dpm}[sampler]

    def step(carry, at):
        index, time, key, marginals = at
        x, memory = carry
        further, memory = advance(x, memory, denoise_fn(x, time), marginals, key)
        x = further if stop is None else jnp.where(along(index < stop, x), further, x)
        return (x, memory), None

    start = start.astype(jnp.float32)
    # The memory of the multistep solver: the last image, and the last step in log SNR,
    # without end at first, so that nothing is extrapolated.
    memory = jnp.zeros_like(start), jnp.asarray(jnp.inf, jnp.float32)
    marginals = signals, sigmas, next_signals, next_sigmas
    (x, _), _ = jax.lax.scan(step, (start, memory), (jnp.arange(steps), times, keys, marginals))
    return x


def _posterior(marginals):
    """Weights of image and noisy image, and both variances, of q(x_s | x_t, x_0)."""
    signal, sigma, next_signal, next_sigma = marginals
    # The ratio of the signals, and with it the shared variance, is at most 1 and 0 or more.
    ratio = signal / next_signal
    large = jnp.maximum(sigma**2 - ratio**2 * next_sigma**2, 0.0)
    share = (next_sigma / sigma) ** 2
    return next_signal * large / sigma**2, ratio * share, large * share, large


def _ddpm(x, memory, denoised, marginals, key):
    image_weight, noisy_weight, small, large = _posterior(marginals)
    mean = image_weight * denoised.image + noisy_weight * x
    # Between the bounds in the logarithm; where the smaller is 0, the step is the last.
    tiny = jnp.finfo(jnp.float32).tiny
    log_small, log_large = jnp.log(jnp.maximum(small, tiny)), jnp.log(jnp.maximum(large, tiny))
    spread = jnp.exp(0.5 * (log_small + denoised.variance * (log_large - log_small)))
    spread = jnp.where(small > 0, spread, 0.0)
    return mean + spread * jax.random.normal(key, x.shape), memory


def _ddim(eta: float) -> Callable:
    def advance(x, memory, denoised, marginals, key):
        _, _, next_signal, next_sigma = marginals
        drawn = eta**2 * _posterior(marginals)[2]
        kept = jnp.sqrt(jnp.maximum(next_sigma**2 - drawn, 0.0))
        x = next_signal * denoised.image + kept * denoised.noise
        if eta:
            x = x + jnp.sqrt(drawn) * jax.random.normal(key, x.shape)
        return x, memory

    return advance


def _dpm(x, memory, denoised, marginals, key):
    del key
    signal, sigma, next_signal, next_sigma = marginals
    last_image, last_length = memory
    # exp(-h), with h the step in log(signal / noise), is 0 in the last step.
    shrink = (next_sigma / next_signal) * (signal / sigma)
    length = -jnp.log(shrink)
    # 1 / (2 r) is 0 in the first step, whose predecessor has no end, and is made 0 in the last.
    extrapolate = jnp.where(jnp.isfinite(length), 0.5 * length / last_length, 0.0)
    image = denoised.image + extrapolate * (denoised.image - last_image)
    x = (next_sigma / sigma) * x - next_signal * (shrink - 1.0) * image
    return x, (denoised.image, length)


def sample(
    diffusion: Diffusion,
    params,
    key: jax.Array,
    labels: jax.Array,
    shape: tuple[int, ...],
    *,
    sampler: str = "dpm",
    steps: int = 25,
    guidance: float = 1.0,
    clip: tuple[float, float] | None = None,
    eta: float = 0.0,
    stop: jax.Array | None = None,
) -> jax.Array:
    """Samples images of given labels.

    Args:
      diffusion: of the model.
      params: of the model.
      key: a PRNG key. The same key starts every model from the same noise.
      labels: (N,) int; the null label for an unconditional sample.
      shape: of one image, (..., C).
      sampler: `"ddpm"`, `"ddim"` or `"dpm"`, see `run`.
      steps: number of times, each one call of the network.
      guidance: of classifier-free guidance, 1 for none; another value doubles the cost.
      clip: (low, high) that images lie in, or `None`.
      eta: randomness of DDIM.
      stop: see `run`.

    Returns:
      (N, ..., C) float32. Jit it with everything static but params, key and labels.

    Raises:
      ValueError: as `run` and `denoise`.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from uno_jax import diffusion
      >>> apply_fn = lambda params, noisy, times, labels: params * noisy
      >>> process = diffusion.Diffusion(apply_fn, diffusion.cosine(), null_label=10)
      >>> labels = jnp.arange(10)
      >>> diffusion.sample(process, jnp.ones(()), jax.random.key(0), labels, (2, 2, 1)).shape
      (10, 2, 2, 1)
    """
    start_key, key = jax.random.split(key)
    start = jax.random.normal(start_key, (labels.shape[0], *shape))

    def denoise_fn(noisy, time):
        return denoise(diffusion, params, noisy, time, labels, guidance=guidance, clip=clip)

    options = {"sampler": sampler, "steps": steps, "eta": eta, "stop": stop}
    return run(denoise_fn, diffusion.schedule, start, key, **options)
