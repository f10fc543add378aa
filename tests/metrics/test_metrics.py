import numpy as np
import pytest

from uno_jax import metrics


def wilson(k, n, z=1.959963984540054):
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return centre - half, centre + half


@pytest.mark.parametrize(("count", "total"), [(0, 10_000), (3, 50), (50, 100), (100, 100)])
def test_wilson_interval_against_its_formula(count, total):
    result = metrics.proportion(count, total)
    np.testing.assert_allclose((result.low, result.high), wilson(count, total), atol=1e-9)
    assert result.low <= result.value <= result.high


@pytest.mark.parametrize(("count", "total"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts(count, total):
    with pytest.raises(ValueError, match="expected 0 <= count <= total"):
        metrics.proportion(count, total)


def test_fractions_are_counted_in_chunks():
    images = np.eye(10, dtype=np.float32)[np.arange(5000) % 10]
    fraction = metrics.forgotten_fraction(lambda x: x, images, 3)
    assert (fraction.count, fraction.total) == (500, 5000)
    assert metrics.accuracy(lambda x: x, images, np.arange(5000) % 10).value == 1.0


def test_frechet_distance_of_gaussians_with_known_answer():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200_000, 3))
    scale, shift = np.array([2.0, 0.5, 1.0]), np.array([1.0, 0.0, -2.0])
    # Diagonal covariances: sum of (difference of means)² and of standard deviations squared.
    expected = (shift**2).sum() + ((scale - 1) ** 2).sum()
    got = metrics.frechet_distance(rng.normal(size=x.shape) * scale + shift, x)
    np.testing.assert_allclose(got, expected, rtol=2e-2)
    assert metrics.frechet_distance(x, x) < 1e-6


def test_frechet_distance_with_constant_features_and_wrong_shapes():
    rng = np.random.default_rng(0)
    a = np.concatenate([rng.normal(size=(500, 2)), np.zeros((500, 3))], axis=1)
    assert metrics.frechet_distance(a, a) < 1e-6
    with pytest.raises(ValueError, match="expected .N, D."):
        metrics.frechet_distance(a, a[:, :2])
