"""Diffusion as pure functions: schedules, losses, guidance, samplers. No model is in here."""

from uno_jax.diffusion.denoising import (
    Denoised,
    Diffusion,
    add_noise,
    denoise,
    guided_output,
    outputs,
    target,
)
from uno_jax.diffusion.losses import make_diffusion_loss, variational_bound
from uno_jax.diffusion.samplers import run, sample
from uno_jax.diffusion.schedules import (
    Schedule,
    continuous_cosine,
    cosine,
    draw_times,
    linear,
    sampling_times,
    straight,
)

__all__ = [
    "Denoised",
    "Diffusion",
    "Schedule",
    "add_noise",
    "continuous_cosine",
    "cosine",
    "denoise",
    "draw_times",
    "guided_output",
    "linear",
    "make_diffusion_loss",
    "outputs",
    "run",
    "sample",
    "sampling_times",
    "straight",
    "target",
    "variational_bound",
]
