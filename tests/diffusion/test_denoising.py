import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uno_jax import diffusion

IMAGES = jax.random.normal(jax.random.key(1), (6, 3, 3, 2))
NOISE = jax.random.normal(jax.random.key(2), (6, 3, 3, 2))
LABELS = jnp.arange(6)


@pytest.mark.parametrize(
    ("schedule", "prediction"),
    [
        (diffusion.linear(), "noise"),
        (diffusion.cosine(), "v"),
        (diffusion.continuous_cosine(), "v"),
        (diffusion.straight(), "velocity"),
    ],
)
def test_a_perfect_prediction_gives_image_and_noise_back(schedule, prediction):
    process = diffusion.Diffusion(lambda params, *_: params, schedule, prediction)
    times = jnp.arange(6) * 50 if schedule.steps else jnp.linspace(0.1, 0.9, 6)
    noisy = diffusion.add_noise(schedule, IMAGES, times, NOISE)
    answer = diffusion.target(process, IMAGES, NOISE, times)
    result = diffusion.denoise(process, answer, noisy, times, LABELS)
    np.testing.assert_allclose(result.image, IMAGES, atol=1e-4)
    np.testing.assert_allclose(result.noise, NOISE, atol=1e-4)
    np.testing.assert_array_equal(result.variance, 0)


def network(params, noisy, times, labels):
    """Tells the labels and the times apart; two channels more say the variance."""
    mean = noisy * (1.0 + labels[:, None, None, None]) + 0.001 * times[:, None, None, None]
    return jnp.concatenate([params * mean, mean], axis=-1)


def test_guidance_moves_away_from_the_null_label():
    process = diffusion.Diffusion(network, diffusion.linear(), learned_variance=True, null_label=9)
    noisy, one = IMAGES, jnp.ones(())
    with_label = diffusion.guided_output(process, one, noisy, 7, LABELS, 1.0)
    without = diffusion.guided_output(process, one, noisy, 7, jnp.full(6, 9), 1.0)
    guided = diffusion.guided_output(process, one, noisy, 7, LABELS, 3.0)
    np.testing.assert_allclose(
        guided[..., :2], (without + 3 * (with_label - without))[..., :2], rtol=1e-5
    )
    np.testing.assert_array_equal(guided[..., 2:], with_label[..., 2:])
    result = diffusion.denoise(process, one, noisy, 7, LABELS, guidance=3.0)
    np.testing.assert_allclose(result.variance, 0.5 * (guided[..., 2:] + 1), rtol=1e-5)


def test_clipping_keeps_image_and_noise_consistent():
    process = diffusion.Diffusion(lambda params, *_: params, diffusion.linear())
    times = jnp.full(6, 300)
    noisy = diffusion.add_noise(process.schedule, IMAGES, times, NOISE)
    result = diffusion.denoise(process, NOISE, noisy, times, LABELS, clip=(-0.5, 0.5))
    np.testing.assert_allclose(result.image, jnp.clip(IMAGES, -0.5, 0.5), atol=1e-4)
    again = diffusion.add_noise(process.schedule, result.image, times, result.noise)
    np.testing.assert_allclose(again, noisy, atol=1e-4)


def test_mistakes_are_named():
    process = diffusion.Diffusion(network, diffusion.linear(), "score")
    with pytest.raises(ValueError, match=r"prediction: expected one of .*, got 'score'"):
        diffusion.denoise(process, None, IMAGES, 3, LABELS)
    process = diffusion.Diffusion(network, diffusion.straight(), learned_variance=True)
    with pytest.raises(ValueError, match="expected a discrete schedule"):
        diffusion.make_diffusion_loss(process)
