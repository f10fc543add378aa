import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uno_jax import diffusion


@pytest.mark.parametrize("schedule", [diffusion.linear(), diffusion.cosine(), diffusion.linear(7)])
def test_discrete_schedules_keep_the_variance_and_fall(schedule):
    times = jnp.arange(schedule.steps)
    signal, noise = schedule.signal(times), schedule.noise(times)
    np.testing.assert_allclose(signal**2 + noise**2, 1.0, atol=1e-6)
    assert (np.diff(signal) < 0).all() and (np.diff(noise) > 0).all()
    np.testing.assert_array_equal(schedule.model_times(times), times)


def test_linear_is_the_published_product():
    betas = np.linspace(1e-4, 0.02, 1000)
    schedule = diffusion.linear()
    for time in (0, 1, 500, 999):
        expected = np.sqrt(np.prod(1 - betas[: time + 1]))
        np.testing.assert_allclose(schedule.signal(time), expected, rtol=1e-6)


def test_cosine_is_the_published_formula_until_its_betas_are_clipped():
    schedule = diffusion.cosine(1000)

    def f(t):
        return np.cos((t / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2

    for time in (0, 10, 500, 900):
        np.testing.assert_allclose(schedule.signal(time) ** 2, f(time + 1) / f(0), rtol=1e-4)
    assert schedule.signal(999) > 0


def test_continuous_schedules_have_exact_ends():
    for schedule in (diffusion.continuous_cosine(), diffusion.straight()):
        np.testing.assert_array_equal(schedule.signal(jnp.array([0.0, 1.0])), [1.0, 0.0])
        np.testing.assert_array_equal(schedule.noise(jnp.array([0.0, 1.0])), [0.0, 1.0])
        np.testing.assert_allclose(schedule.model_times(jnp.array(0.25)), 250.0)
    half = diffusion.continuous_cosine()
    np.testing.assert_allclose(half.signal(0.5), np.sqrt(0.5), rtol=1e-6)
    np.testing.assert_allclose(diffusion.straight().signal(0.25), 0.75)


def test_times_are_uniform_and_in_range():
    times = diffusion.draw_times(diffusion.linear(4), jax.random.key(0), 10_000)
    counts = np.bincount(times, minlength=4)
    assert len(counts) == 4 and (abs(counts - 2500) < 200).all()
    times = diffusion.draw_times(diffusion.straight(), jax.random.key(0), 10_000)
    assert times.min() >= 0 and times.max() < 1 and abs(times.mean() - 0.5) < 0.02


def test_sampling_times_fall_from_the_last():
    np.testing.assert_array_equal(
        diffusion.sampling_times(diffusion.linear(1000), 4), [999, 666, 333, 0]
    )
    np.testing.assert_array_equal(diffusion.sampling_times(diffusion.linear(1000), 1), [999])
    np.testing.assert_array_equal(
        diffusion.sampling_times(diffusion.straight(), 4), [1.0, 0.75, 0.5, 0.25]
    )


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="linear: expected"):
        diffusion.linear(0)
    with pytest.raises(ValueError, match=r"cosine: expected .* got 10, 0\."):
        diffusion.cosine(10, offset=0.0)
    with pytest.raises(ValueError, match="expected 1 to 10 times, got 11"):
        diffusion.sampling_times(diffusion.linear(10), 11)
    with pytest.raises(ValueError, match="any number of times, got 0"):
        diffusion.sampling_times(diffusion.straight(), 0)
