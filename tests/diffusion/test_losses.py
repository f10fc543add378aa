import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion.gaussian import COVARIANCE, MEAN, exact
from uno_jax import diffusion
from uno_jax.diffusion.losses import reverse_step


@pytest.mark.parametrize(
    ("schedule", "prediction"),
    [
        (diffusion.linear(20), "noise"),
        (diffusion.cosine(20), "v"),
        (diffusion.straight(), "velocity"),
    ],
)
def test_the_exact_model_is_the_minimum(schedule, prediction):
    """No constant added to the exact prediction lowers the loss."""
    root = np.linalg.cholesky(COVARIANCE)
    images = MEAN + jax.random.normal(jax.random.key(3), (20_000, 2)) @ root.T
    batch = {"image": images, "label": jnp.zeros(len(images), jnp.int32)}
    process = exact(schedule, prediction)

    def shifted(params, *arguments):
        return process.apply_fn(None, *arguments) + params

    loss_fn = diffusion.make_diffusion_loss(process._replace(apply_fn=shifted))
    slope = jax.grad(loss_fn)(jnp.zeros(2), batch, jax.random.key(0))
    np.testing.assert_allclose(slope, 0, atol=0.02)


def test_labels_are_dropped_at_their_rate_and_unconditional_has_none():
    seen = []

    def apply_fn(params, noisy, times, labels):
        del params, times
        seen.append(labels)
        return noisy

    process = diffusion.Diffusion(apply_fn, diffusion.linear(10), null_label=7)
    batch = {"image": jnp.zeros((20_000, 1)), "label": jnp.ones(20_000, jnp.int32)}
    key = jax.random.key(0)
    diffusion.make_diffusion_loss(process)(None, batch, key)
    diffusion.make_diffusion_loss(process, label_dropout=0.1)(None, batch, key)
    diffusion.make_diffusion_loss(process, conditional=False)(None, {"image": batch["image"]}, key)
    assert (seen[0] == 1).all() and (seen[2] == 7).all()
    assert set(np.unique(seen[1])) == {1, 7}
    assert abs((seen[1] == 7).mean() - 0.1) < 0.01


def test_reverse_step_is_the_posterior_of_the_chain():
    betas = np.linspace(1e-4, 0.02, 100)
    schedule = diffusion.linear(100)
    kept = np.cumprod(1 - betas)
    times = jnp.array([1, 5, 99])
    image, noisy, log_small, log_large = (
        np.ravel(v) for v in reverse_step(schedule, times, jnp.zeros((3, 1)))
    )
    t = np.asarray(times)
    small = betas[t] * (1 - kept[t - 1]) / (1 - kept[t])
    np.testing.assert_allclose(image, np.sqrt(kept[t - 1]) * betas[t] / (1 - kept[t]), rtol=2e-3)
    np.testing.assert_allclose(
        noisy, np.sqrt(1 - betas[t]) * (1 - kept[t - 1]) / (1 - kept[t]), rtol=2e-3
    )
    np.testing.assert_allclose(log_small, np.log(small), atol=5e-3)
    np.testing.assert_allclose(log_large, np.log(betas[t]), atol=5e-3)


def learned(variance):
    """A model that predicts no noise, and a given share of the variance."""

    def apply_fn(params, noisy, times, labels):
        del times, labels
        return jnp.concatenate([params[0] * noisy, jnp.full_like(noisy, params[1])], axis=-1)

    process = diffusion.Diffusion(
        apply_fn, diffusion.linear(50), learned_variance=True, null_label=0
    )
    return process, jnp.array([0.9, variance])


def test_the_variational_bound_is_a_divergence_of_gaussians():
    process, params = learned(0.3)
    times = jnp.array([3, 10, 40])
    images = jax.random.normal(jax.random.key(0), (3, 4)) * 0.5
    noisy = diffusion.add_noise(
        process.schedule, images, times, jax.random.normal(jax.random.key(1), (3, 4))
    )
    result = process.apply_fn(params, noisy, times, None)
    got = diffusion.variational_bound(process, result, images, noisy, times)

    weights = [np.asarray(w) for w in reverse_step(process.schedule, times, images)]
    image_weight, noisy_weight, log_small, log_large = weights
    signal, sigma = (
        np.asarray(f(times))[:, None] for f in (process.schedule.signal, process.schedule.noise)
    )
    clean = (noisy - sigma * 0.9 * noisy) / signal
    true = image_weight * images + noisy_weight * noisy
    mean = image_weight * clean + noisy_weight * noisy
    log_variance = 0.65 * log_large + 0.35 * log_small
    small, variance = np.exp(log_small), np.exp(log_variance)
    kl = 0.5 * (np.log(variance / small) - 1 + (small + (true - mean) ** 2) / variance)
    np.testing.assert_allclose(got, kl.mean(axis=1) / np.log(2), rtol=1e-3)


def test_at_time_zero_it_is_a_likelihood_of_bins():
    process, _ = learned(1.0)
    images = jnp.array([[-1.0, -0.2, 0.4, 1.0]])
    times = jnp.zeros(1, jnp.int32)
    result = process.apply_fn(jnp.array([0.0, 1.0]), images, times, None)
    bits = diffusion.variational_bound(process, result, images, images, times)
    assert 0 < bits[0] < 8


def test_the_mean_has_no_gradient_of_the_bound():
    process, params = learned(0.3)
    images = jax.random.normal(jax.random.key(0), (64, 4)) * 0.5
    times = jnp.arange(64) % 50

    def bound(params):
        noisy = diffusion.add_noise(process.schedule, images, times, images)
        result = process.apply_fn(params, noisy, times, None)
        return jnp.mean(diffusion.variational_bound(process, result, images, noisy, times))

    slope = jax.grad(bound)(params)
    assert slope[0] == 0 and slope[1] != 0
    loss_fn = diffusion.make_diffusion_loss(process)
    batch = {"image": images, "label": times}
    assert jnp.isfinite(loss_fn(params, batch, jax.random.key(0)))


def test_bfloat16_outputs_are_reduced_in_float32():
    process = diffusion.Diffusion(lambda p, noisy, t, y: (p * noisy).astype(jnp.bfloat16),
                                  diffusion.linear())  # fmt: skip
    batch = {"image": jnp.ones((8, 4)), "label": jnp.zeros(8, jnp.int32)}
    loss = diffusion.make_diffusion_loss(process)(jnp.ones(()), batch, jax.random.key(0))
    chex.assert_type(loss, jnp.float32)


def test_mistakes_are_named():
    process = diffusion.Diffusion(lambda *_: None, diffusion.linear())
    with pytest.raises(ValueError, match="expected a model with a null label"):
        diffusion.make_diffusion_loss(process, label_dropout=0.1)
    with pytest.raises(ValueError, match=r"label_dropout: expected a number in \[0, 1\), got 1"):
        diffusion.make_diffusion_loss(process._replace(null_label=3), label_dropout=1)
