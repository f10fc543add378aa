"""A Gaussian of two dimensions, whose score is known."""

import jax.numpy as jnp
import numpy as np

from uno_jax import diffusion

MEAN = np.array([0.7, -0.4], np.float32)
COVARIANCE = np.array([[0.5, 0.3], [0.3, 0.4]], np.float32)


def expected_image(schedule, noisy, times):
    """E[x_0 | x_t] = m + α C (α² C + σ² I)⁻¹ (x_t - α m)."""
    signal, sigma = schedule.signal(times), schedule.noise(times)

    def gain(a, s):
        return a * COVARIANCE @ jnp.linalg.inv(a**2 * COVARIANCE + s**2 * jnp.eye(2))

    gains = jnp.vectorize(gain, signature="(),()->(2,2)")(signal, sigma)
    centred = noisy - signal[:, None] * MEAN
    return MEAN + jnp.einsum("nij,nj->ni", gains, centred)


def exact(schedule, prediction) -> diffusion.Diffusion:
    """The model that predicts exactly; parameters are not looked at."""

    def apply_fn(params, noisy, times, labels):
        del params, labels
        times = times if schedule.steps else times / 1000.0
        image = expected_image(schedule, noisy, times)
        signal, sigma = schedule.signal(times)[:, None], schedule.noise(times)[:, None]
        noise = (noisy - signal * image) / jnp.maximum(sigma, 1e-12)
        if prediction == "noise":
            return noise
        if prediction == "velocity":
            return noise - image
        return signal * noise - sigma * image

    return diffusion.Diffusion(apply_fn, schedule, prediction, null_label=10)
