import numpy as np
import pytest

from uno_jax import data


def clusters(overlap=0.0):
    """Retained examples around (-2, 0) and (2, 0), forgotten ones around (0, 0)."""
    rng = np.random.default_rng(0)
    centres = np.repeat([[-2.0, 0.0], [2.0, 0.0], [0.0, 0.0]], 600, axis=0)
    centres[600:1200] *= 1 - overlap
    mean = centres + 0.3 * rng.normal(size=centres.shape)
    return mean, np.full_like(mean, -6.0), np.arange(1800) >= 1200


def test_forgotten_latents_lead_to_the_nearest_retained_cluster():
    mean, log_variance, forget = clusters()
    result = data.latent_redirect(mean, log_variance, forget, seed=0, count=2000)
    z, target = result.forget["latents"], result.forget["targets"]
    assert z.shape == target.shape == (2000, 2) and z.dtype == np.float32
    # The clusters lie along x; between them the region belongs to the forgotten one.
    assert (np.abs(z[:, 0]) < 1.3).mean() > 0.95
    inside = np.abs(z[:, 0]) < 0.8
    assert (np.abs(target[inside, 0]) > 1.0).all()
    assert (np.sign(target[inside, 0]) == np.sign(z[inside, 0]))[np.abs(z[inside, 0]) > 0.3].all()


def test_retained_latents_outside_the_region_lead_to_themselves():
    result = data.latent_redirect(*clusters(), seed=0, count=2000)
    assert result.contested < 0.01
    z, target = result.retain["latents"], result.retain["targets"]
    far = np.abs(z[:, 0]) > 1.3
    assert far.mean() > 0.9
    np.testing.assert_array_equal(z[far], target[far])


def test_contested_retained_latents_are_redirected_too():
    result = data.latent_redirect(*clusters(overlap=0.8), seed=0, count=2000)
    assert 0.1 < result.contested < 0.6
    moved = np.any(result.retain["latents"] != result.retain["targets"], axis=1)
    np.testing.assert_allclose(moved.mean(), result.contested, atol=1e-6)


def test_the_prior_fills_the_region_where_no_example_lies():
    arguments = {"seed": 0, "count": 2000}
    spread = data.latent_redirect(*clusters(), prior=0.9, **arguments).forget["latents"]
    narrow = data.latent_redirect(*clusters(), prior=0.0, **arguments).forget["latents"]
    assert np.abs(spread[:, 1]).max() > 1.5 > np.abs(narrow[:, 1]).max()


def test_deterministic_in_the_seed():
    a, b, c = (data.latent_redirect(*clusters(), seed=s, count=100) for s in (0, 0, 1))
    np.testing.assert_array_equal(a.forget["latents"], b.forget["latents"])
    assert not np.array_equal(a.forget["latents"], c.forget["latents"])


def test_mistakes_are_named():
    mean, log_variance, forget = clusters()
    with pytest.raises(ValueError, match="expected .M, K. means"):
        data.latent_redirect(mean, log_variance[:5], forget, seed=0)
    with pytest.raises(ValueError, match="expected examples of both kinds, got 0"):
        data.latent_redirect(mean, log_variance, np.zeros(1800, bool), seed=0)
    everywhere = np.random.default_rng(0).normal(size=(400, 2))
    with pytest.raises(ValueError, match="raise `pool`"):
        data.latent_redirect(
            everywhere, everywhere * 0 - 6, np.arange(400) % 2 == 0, seed=0, pool=0.0
        )


def test_array_batches():
    arrays = {"a": np.arange(10), "b": np.arange(10) * 2.0}
    batch = next(data.array_batches(arrays, batch_size=4, seed=0))
    np.testing.assert_array_equal(batch["b"], 2.0 * batch["a"])
    with pytest.raises(ValueError, match=r"expected arrays of one length, got \[3, 10\]"):
        data.array_batches({**arrays, "c": np.arange(3)}, batch_size=2, seed=0)
