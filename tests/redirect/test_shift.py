import numpy as np
import pytest

from uno_jax import redirect

DIFFERENCE = np.array([2.0, -1.0, 0.0, 0.5])
COVARIANCE = np.diag([1.0, 0.5, 2.0, 1.0]) + 0.1


@pytest.fixture(scope="module")
def posterior():
    """Two Gaussians of one covariance: means and, of the same, a variance of 0.25."""
    rng = np.random.default_rng(0)
    forget = rng.random(40_000) < 0.3
    root = np.linalg.cholesky(COVARIANCE - 0.25 * np.eye(4))
    mean = rng.normal(size=(40_000, 4)) @ root.T + forget[:, None] * DIFFERENCE
    return mean, np.full(mean.shape, np.log(0.25)), forget


def test_the_share_is_bayes_rule_of_two_gaussians(posterior):
    shift = redirect.latent_shift(*posterior)
    np.testing.assert_allclose(shift.difference, DIFFERENCE, atol=0.05)
    z = np.random.default_rng(1).normal(size=(50, 4))
    inverse = np.linalg.inv(COVARIANCE)

    def density(z):
        return np.exp(-0.5 * np.einsum("ni,ij,nj->n", z, inverse, z))

    odds = 0.3 * density(z - DIFFERENCE) / (0.7 * density(z))
    np.testing.assert_allclose(shift.contest(z), odds / (1 + odds), atol=0.03)


def test_no_latent_keeps_more_than_the_share(posterior):
    mean, _, forget = posterior
    shift = redirect.latent_shift(*posterior, share=0.1)
    rng = np.random.default_rng(2)
    z = mean + 0.5 * rng.normal(size=mean.shape)
    moved = shift(z)
    assert moved.dtype == np.float32
    before, after = shift.contest(z), shift.contest(moved)
    np.testing.assert_allclose(after, np.minimum(before, 0.1), atol=1e-5)
    np.testing.assert_allclose(moved[before < 0.1], z[before < 0.1], atol=1e-6)
    # Along the difference alone: nothing else about a latent changes.
    steps = (z - moved) @ shift.difference / (shift.difference @ shift.difference)
    np.testing.assert_allclose(moved, z - steps[:, None] * shift.difference, atol=1e-5)
    assert (steps[forget] > 0.05).mean() > 0.9


def test_both_sides_are_sampled_with_their_counterparts(posterior):
    shift = redirect.latent_shift(*posterior)
    sides = redirect.shifted_latents(shift, *posterior, seed=0, count=1000, prior=0.25)
    for side in sides:
        assert side["latents"].shape == side["shifted"].shape == (1000, 4)
        np.testing.assert_allclose(side["shifted"], shift(side["latents"]), atol=1e-5)
    retain, forget = (shift.contest(side["latents"]).mean() for side in sides)
    assert forget > 0.5 > 0.2 > retain
    again = redirect.shifted_latents(shift, *posterior, seed=0, count=1000, prior=0.25)
    np.testing.assert_array_equal(again[0]["latents"], sides[0]["latents"])


def test_mistakes_are_named(posterior):
    mean, log_variance, forget = posterior
    with pytest.raises(ValueError, match="boolean mask"):
        redirect.latent_shift(mean, log_variance, forget.astype(int))
    with pytest.raises(ValueError, match="both kinds, got 0 to forget"):
        redirect.latent_shift(mean, log_variance, np.zeros_like(forget))
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        redirect.latent_shift(*posterior, share=1)
