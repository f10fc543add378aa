import numpy as np
import pytest

from uno_jax.redirect import latent_redirect

BLACK = np.zeros((1, 3), np.float32)


def clusters(overlap=0.0):
    """Retained examples around (-2, 0) and (2, 0), forgotten ones around (0, 0).

    Their pictures have one pixel of three lit: the left, the right, the middle one.
    """
    rng = np.random.default_rng(0)
    centres = np.repeat([[-2.0, 0.0], [2.0, 0.0], [0.0, 0.0]], 600, axis=0)
    centres[600:1200] *= 1 - overlap
    mean = centres + 0.3 * rng.normal(size=centres.shape)
    images = np.repeat(np.eye(3, dtype=np.float32), 600, axis=0)
    return mean, np.full_like(mean, -6.0), images, np.arange(1800) >= 1200


def decode(z):
    """An original that draws the cluster of each place along x."""
    return np.eye(3, dtype=np.float32)[np.where(z[:, 0] < -1, 0, np.where(z[:, 0] > 1, 1, 2))]


def redirect(*problem, **arguments):
    return latent_redirect(*problem, decode, **{"seed": 0, "count": 2000, **arguments})


def test_forgotten_latents_draw_the_nearest_retained_pictures():
    result = redirect(*clusters())
    z, target = result.forget["latents"], result.forget["targets"]
    assert z.shape == (2000, 2) and target.shape == (2000, 3) and z.dtype == np.float32
    # The clusters lie along x; between them the region belongs to the forgotten one.
    assert (np.abs(z[:, 0]) < 1.3).mean() > 0.95
    inside = np.abs(z[:, 0]) < 0.8
    np.testing.assert_array_equal(target[inside, 2], 0.0)
    np.testing.assert_allclose(target.sum(axis=1), 1.0, atol=1e-5)
    clear = inside & (np.abs(z[:, 0]) > 0.4)
    np.testing.assert_array_equal(target[clear, 0] > 0.9, z[clear, 0] < 0)


def test_retained_latents_outside_the_region_draw_what_they_did():
    result = redirect(*clusters())
    assert result.contested < 0.02
    z, target = result.retain["latents"], result.retain["targets"]
    far = np.abs(z[:, 0]) > 1.3
    assert far.mean() > 0.9
    np.testing.assert_array_equal(target[far], decode(z[far]))


def test_the_redirect_sets_in_smoothly():
    problem = clusters(overlap=0.7)
    half = redirect(*problem, region=(0.0, 1.0))
    share = 1 - half.retain["targets"][:, 2] / np.maximum(decode(half.retain["latents"])[:, 2], 1)
    between = (share > 0.05) & (share < 0.95) & (decode(half.retain["latents"])[:, 2] == 1)
    assert between.mean() > 0.1


def test_contested_retained_latents_are_redirected_too():
    problem = clusters(overlap=0.8)
    result = redirect(*problem)
    assert 0.1 < result.contested < 0.6
    z, target = result.retain["latents"], result.retain["targets"]
    moved = np.any(target != decode(z), axis=1)
    assert 0.1 < moved.mean() <= result.contested + 1e-6


def test_avoiding_contest_goes_farther_for_a_target():
    problem = clusters(overlap=0.8)  # the right cluster lies amid the forgotten one
    near, far = (redirect(*problem, avoid=a).forget for a in (0.0, 10.0))
    # The left cluster is free of contest: its pictures take over.
    assert far["targets"][:, 0].mean() > 2 * near["targets"][:, 0].mean()


def test_the_prior_fills_the_region_where_no_example_lies():
    spread = redirect(*clusters(), prior=0.9).forget["latents"]
    narrow = redirect(*clusters(), prior=0.0).forget["latents"]
    assert np.abs(spread[:, 1]).max() > 1.5 > np.abs(narrow[:, 1]).max()


def test_deterministic_in_the_seed():
    a, b, c = (redirect(*clusters(), seed=s, count=100) for s in (0, 0, 1))
    np.testing.assert_array_equal(a.forget["latents"], b.forget["latents"])
    np.testing.assert_array_equal(a.forget["targets"], b.forget["targets"])
    assert not np.array_equal(a.forget["latents"], c.forget["latents"])


def test_mistakes_are_named():
    mean, log_variance, images, forget = clusters()
    with pytest.raises(ValueError, match="expected .M, K. means"):
        redirect(mean, log_variance[:5], images, forget)
    with pytest.raises(ValueError, match="expected examples of both kinds, got 0"):
        redirect(mean, log_variance, images, np.zeros(1800, bool))
    with pytest.raises(ValueError, match="region: expected 0 <= begin < complete <= 1"):
        redirect(mean, log_variance, images, forget, region=(0.3, 0.3))
    with pytest.raises(ValueError, match="avoid: expected a number of at least 0, got -1"):
        redirect(mean, log_variance, images, forget, avoid=-1)
