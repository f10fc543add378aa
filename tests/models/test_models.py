import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from uno_jax import models


@pytest.fixture(scope="module")
def vae():
    model = models.MnistVAE(hidden=16)
    variables = model.init(jax.random.key(0), jnp.zeros((2, 784)), jnp.zeros((2, 2)), train=True)
    images = np.random.default_rng(0).uniform(size=(6, 784)).astype(np.float32)
    return model, variables["params"], variables["batch_stats"], {"image": images}


def test_bernoulli_log_likelihood_matches_scipy():
    rng = np.random.default_rng(0)
    logits, images = rng.normal(size=(3, 5)), rng.integers(0, 2, size=(3, 5))
    expected = stats.bernoulli.logpmf(images, 1 / (1 + np.exp(-logits))).sum(1)
    got = models.bernoulli_log_likelihood(jnp.asarray(logits), jnp.asarray(images))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_gaussian_kl_matches_a_monte_carlo_estimate():
    mean, log_variance = np.array([[0.7, -1.2]]), np.array([[0.4, -0.9]])
    sd = np.exp(0.5 * log_variance)
    z = mean + sd * np.random.default_rng(0).normal(size=(400_000, 2))
    ratio = stats.norm.logpdf(z, mean, sd) - stats.norm.logpdf(z)
    got = models.gaussian_kl(jnp.asarray(mean), jnp.asarray(log_variance))
    np.testing.assert_allclose(got[0], ratio.sum(1).mean(), rtol=5e-3)
    assert models.gaussian_kl(jnp.zeros((1, 3)), jnp.zeros((1, 3)))[0] == 0


def test_training_mode_moves_the_running_statistics_and_frozen_does_not(vae):
    model, params, stats_, batch = vae
    key = jax.random.key(1)
    _, moved = models.make_vae_loss(model)(params, stats_, batch, key)
    assert not np.array_equal(moved["encoder"]["norm"]["mean"], stats_["encoder"]["norm"]["mean"])
    _, kept = models.make_vae_loss(model, norm="running")(params, stats_, batch, key)
    jax.tree.map(np.testing.assert_array_equal, kept, stats_)
    with pytest.raises(ValueError, match="norm: expected one of"):
        models.make_vae_loss(model, norm="layer")


def test_the_loss_is_the_summed_negative_elbo(vae):
    model, params, stats_, batch = vae
    key = jax.random.key(1)
    loss, _ = models.make_vae_loss(model, norm="running")(params, stats_, batch, key)
    values = models.negative_elbo(model, params, stats_, batch["image"], key)
    assert values.shape == (6,)
    np.testing.assert_allclose(loss, values.sum(), rtol=1e-6)
    trained, _ = models.make_vae_loss(model)(params, stats_, batch, key)
    in_train = models.negative_elbo(model, params, stats_, batch["image"], key, train=True)
    np.testing.assert_allclose(trained, in_train.sum(), rtol=1e-6)


def test_decoded_pictures_are_probabilities(vae):
    model, params, stats_, _ = vae
    images = models.decode(model, params, stats_, jnp.ones((4, 2)))
    assert images.shape == (4, 784)
    assert ((images >= 0) & (images <= 1)).all()


@pytest.mark.parametrize(
    "model", [models.DigitCNN(), models.DigitMLP(), models.DigitMLP(normalize=True)]
)
def test_classifiers_give_ten_logits(model):
    images = jnp.zeros((3, 784))
    variables = model.init(jax.random.key(0), images)
    assert model.apply(variables, images).shape == (3, 10)


def test_cnn_features():
    model = models.DigitCNN(penultimate=7)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 784)))
    assert model.apply(variables, jnp.zeros((3, 784)), method="embed").shape == (3, 7)


def test_translation_moves_images_by_whole_pixels():
    model = models.DigitMLP()
    image = np.zeros((64, 28, 28), np.float32)
    image[:, 14, 14] = 1.0
    shifted = models.classifiers._translate(image.reshape(64, -1), jax.random.key(0), 2)
    where = np.argwhere(np.asarray(shifted).reshape(64, 28, 28))
    assert len(where) == 64
    assert np.abs(where[:, 1:] - 14).max() == 2
    params = model.init(jax.random.key(0), jnp.zeros((1, 784)))["params"]
    batch = {"image": image.reshape(64, -1), "label": np.zeros(64, np.int32)}
    loss = models.make_classifier_loss(model, shift=2)(params, batch, jax.random.key(0))
    assert loss.shape == () and np.isfinite(loss)
