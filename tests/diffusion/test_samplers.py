"""Samplers against a Gaussian whose score is known, and against each other."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion.gaussian import COVARIANCE, MEAN, exact
from uno_jax import diffusion

COUNT = 20_000
CASES = [
    # With the noise of every step, the variance has an error of the order of a step.
    ("ddpm", diffusion.linear(), "noise", 500, 0.02),
    ("ddpm", diffusion.continuous_cosine(), "v", 200, 0.02),
    ("ddim", diffusion.linear(), "noise", 200, 0.02),
    ("ddim", diffusion.continuous_cosine(), "v", 200, 0.02),
    ("ddim", diffusion.straight(), "velocity", 200, 0.02),
    ("dpm", diffusion.linear(), "noise", 150, 0.02),
    ("dpm", diffusion.cosine(), "v", 50, 0.02),
    ("dpm", diffusion.continuous_cosine(), "v", 50, 0.02),
    ("dpm", diffusion.straight(), "velocity", 50, 0.02),
]


def moments(samples):
    return np.mean(samples, axis=0), np.cov(samples, rowvar=False)


@pytest.mark.parametrize(("sampler", "schedule", "prediction", "steps", "bias"), CASES)
def test_mean_and_covariance_are_those_of_the_data(sampler, schedule, prediction, steps, bias):
    labels = jnp.zeros(COUNT, jnp.int32)
    draw = jax.jit(
        lambda key: diffusion.sample(
            exact(schedule, prediction), None, key, labels, (2,), sampler=sampler, steps=steps
        )
    )
    mean, covariance = moments(draw(jax.random.key(0)))
    # Four standard errors of a mean and of a covariance, and the solver's own error.
    scale = 4.0 / np.sqrt(COUNT)
    np.testing.assert_allclose(mean, MEAN, atol=scale * np.sqrt(0.5) + bias)
    np.testing.assert_allclose(covariance, COVARIANCE, atol=scale * np.sqrt(2) * 0.5 + bias)


def test_ddim_with_all_its_noise_is_ddpm_in_distribution():
    process = exact(diffusion.linear(), "noise")
    labels = jnp.zeros(COUNT, jnp.int32)
    results = [
        moments(
            diffusion.sample(
                process, None, jax.random.key(1), labels, (2,), steps=100, sampler=sampler, eta=eta
            )
        )
        for sampler, eta in (("ddpm", 0.0), ("ddim", 1.0))
    ]
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=0.02)


def test_the_error_of_ddim_halves_and_dpm_is_far_below():
    process = exact(diffusion.continuous_cosine(), "v")
    labels = jnp.zeros(200, jnp.int32)

    def draw(sampler, steps):
        key = jax.random.key(0)
        return diffusion.sample(process, None, key, labels, (2,), sampler=sampler, steps=steps)

    truth = draw("ddim", 4000)
    first, second = (
        np.array([float(jnp.abs(draw(sampler, steps) - truth).max()) for steps in (20, 40, 80)])
        for sampler in ("ddim", "dpm")
    )
    np.testing.assert_allclose(first[:-1] / first[1:], 2.0, rtol=0.1)
    assert (second < first / 5).all(), (first, second)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm"])
def test_samplers_trace_once_and_call_the_network_in_one_scan(sampler):
    calls = []
    inner = exact(diffusion.linear(), "noise")

    def apply_fn(*arguments):
        calls.append(1)
        return inner.apply_fn(*arguments)

    process = inner._replace(apply_fn=apply_fn)
    draw = jax.jit(
        chex.assert_max_traces(
            lambda key, labels: diffusion.sample(
                process, None, key, labels, (2,), sampler=sampler, steps=13
            ),
            n=1,
        )
    )
    labels = jnp.zeros(3, jnp.int32)
    first, second = draw(jax.random.key(0), labels), draw(jax.random.key(1), labels + 1)
    assert not np.allclose(first, second)
    # A scan may look at its body twice to find the dtypes of what it carries.
    assert len(calls) <= 2


def test_an_example_stops_where_it_is_told():
    process = exact(diffusion.linear(), "noise")
    key, labels = jax.random.key(0), jnp.zeros(4, jnp.int32)

    def draw(steps, stop=None):
        return diffusion.sample(
            process, None, key, labels, (2,), sampler="ddim", steps=steps, stop=stop
        )

    stopped = draw(10, jnp.array([0, 3, 10, 12]))
    start = jax.random.normal(jax.random.split(key)[0], (4, 2))
    np.testing.assert_array_equal(stopped[0], start[0])
    np.testing.assert_array_equal(stopped[2:], draw(10)[2:])
    # After three steps it is as noisy as at the fourth time.
    time = diffusion.sampling_times(process.schedule, 10)[3]
    many = diffusion.sample(
        process, None, key, jnp.zeros(COUNT, jnp.int32), (2,), sampler="ddpm", steps=10,
        stop=jnp.full(COUNT, 3),
    )  # fmt: skip
    signal, sigma = process.schedule.signal(time), process.schedule.noise(time)
    np.testing.assert_allclose(np.mean(many, axis=0), signal * MEAN, atol=0.03)
    expected = signal**2 * COVARIANCE + sigma**2 * np.eye(2)
    np.testing.assert_allclose(np.cov(many, rowvar=False), expected, atol=0.05)


def test_sampling_is_sharded_over_devices():
    process = exact(diffusion.linear(), "noise")
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    labels = jnp.zeros(16, jnp.int32)

    def draw(labels):
        key = jax.random.key(0)
        return diffusion.sample(process, None, key, labels, (2,), sampler="ddim", steps=5)

    one = jax.jit(draw)(labels)
    many = jax.jit(draw, in_shardings=sharding, out_shardings=sharding)(
        jax.device_put(labels, sharding)
    )
    assert many.sharding == sharding
    np.testing.assert_allclose(one, many, atol=1e-5)


def test_images_are_clipped_and_mistakes_named():
    process = exact(diffusion.linear(), "noise")
    key, labels = jax.random.key(0), jnp.zeros(50, jnp.int32)
    images = diffusion.sample(process, None, key, labels, (2,), clip=(-0.5, 0.5), sampler="ddim")
    assert abs(images).max() <= 0.5 + 1e-5
    with pytest.raises(ValueError, match=r"sampler: expected one of .*, got 'x'"):
        diffusion.sample(process, None, key, labels, (2,), sampler="x")
    with pytest.raises(ValueError, match="null label"):
        diffusion.sample(
            process._replace(null_label=None), None, key, labels, (2,), guidance=2.0, steps=2
        )
