import jax
import jax.numpy as jnp
import numpy as np
import pytest

import uno_jax as uno
from uno_jax.generative.vae import VAE

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).uniform(size=(6, 3, 4)).astype(np.float32)


def params():
    rng = np.random.default_rng(1)
    weights = {"in": rng.normal(size=(12, 4)), "out": rng.normal(size=(2, 12))}
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), weights)


def encode(params, x):
    hidden = x.reshape(len(x), -1) @ params["in"]
    return hidden[:, :2], hidden[:, 2:] - 4.0


def decode(params, z):
    return (z @ params["out"]).reshape(len(z), 3, 4)


def sigmoid_decode(params, z):
    return jax.nn.sigmoid(decode(params, z))


def by_hand(likelihood):
    mean, v = (np.asarray(part) for part in encode(params(), IMAGES))
    z = mean + np.exp(v / 2) * np.asarray(jax.random.normal(KEY, mean.shape))
    outputs = np.asarray(decode(params(), jnp.asarray(z)))
    kl = 0.5 * (np.exp(v) + mean**2 - 1 - v).sum(axis=1)
    if likelihood == "bernoulli":
        p = 1 / (1 + np.exp(-outputs))
        return -(IMAGES * np.log(p) + (1 - IMAGES) * np.log(1 - p)).sum(axis=(1, 2)) + kl
    scale = 1.0 if likelihood == "gaussian" else 0.3
    return ((IMAGES - outputs) ** 2).sum(axis=(1, 2)) / (2 * scale**2) + kl


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", uno.losses.gaussian(0.3)])
def test_the_loss_is_the_bound_and_its_mean(likelihood):
    vae = VAE(encode, decode, likelihood)
    batch = {"image": jnp.asarray(IMAGES)}
    losses = vae.example_loss(params(), batch, KEY)
    assert losses.shape == (6,) and losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, by_hand(likelihood), rtol=2e-4)
    np.testing.assert_allclose(vae.loss_fn(params(), batch, KEY), losses.mean(), rtol=1e-6)


def test_pictures_and_their_outputs():
    vae = VAE(encode, decode)
    outputs = jnp.linspace(-8.0, 8.0, 12).reshape(1, 3, 4)
    np.testing.assert_allclose(vae.picture(outputs), jax.nn.sigmoid(outputs))
    np.testing.assert_allclose(vae.outputs(vae.picture(outputs)), outputs, rtol=1e-3)
    assert np.isfinite(vae.outputs(jnp.array([0.0, 1.0]))).all()
    np.testing.assert_array_equal(VAE(encode, decode, "gaussian").picture(outputs), outputs)


def test_samples_are_pictures_of_the_prior():
    vae = VAE(encode, decode)
    pictures = vae.sample(params(), KEY, 5, latents=2)
    assert pictures.shape == (5, 3, 4)
    assert 0 < pictures.min() < pictures.max() < 1
    np.testing.assert_array_equal(pictures, vae.sample(params(), KEY, 5, latents=2))


def test_a_sound_model_passes():
    VAE(encode, decode).check(params(), IMAGES)
    VAE(encode, sigmoid_decode, "gaussian").check(params(), IMAGES)
    VAE(encode, decode, uno.losses.gaussian(0.3)).check(params(), 5 * IMAGES)


def refused(match, *functions, images=IMAGES):
    with pytest.raises(ValueError, match=match):
        VAE(*functions).check(params(), images)


def test_mistakes_of_the_encoder_are_named():
    refused(r"encode: expected .mean, log_variance.* got ArrayImpl|ShapeDtypeStruct",
            lambda p, x: encode(p, x)[0], decode)  # fmt: skip
    refused(r"two arrays .6, K.", lambda p, x: (*encode(p, x), x), decode)
    refused(r"\[\(6, 2\), \(6, 1\)\]", lambda p, x: (encode(p, x)[0], encode(p, x)[1][:, :1]),
            decode)  # fmt: skip

    def with_deviation(p, x):
        mean, log_variance = encode(p, x)
        return mean, jnp.exp(0.5 * log_variance)

    refused("2 \\* jnp.log.deviation.", with_deviation, decode)


def test_mistakes_of_the_decoder_are_named():
    def flat(p, z):
        return z @ p["out"]

    refused(r"of the shape of the images, .6, 3, 4., got .6, 12.", encode, flat)
    refused("expected logits for likelihood='bernoulli', got values in .* as a sigmoid", encode,
            sigmoid_decode)  # fmt: skip
    refused(
        "decode: expected decode.params, z. to take .6, 2. latents",
        encode,
        lambda p, z: z @ p["in"],
    )


def test_mistakes_of_the_images_are_named():
    refused(r"values in .0, 1. .* divide 8-bit images by 255", encode, decode, images=255 * IMAGES)
    refused("expected finite", encode, decode, images=IMAGES * np.nan)
    refused("at least one image, got .0, 3, 4.", encode, decode, images=IMAGES[:0])
    refused("expected floats", encode, decode, images=IMAGES.astype(np.uint8))
    with pytest.raises(ValueError, match="likelihood: expected one of .*, got 'poisson'"):
        VAE(encode, decode, "poisson")


def test_an_encoder_that_does_not_take_the_images_is_said_in_one_line():
    params = {"in": jnp.ones((12, 2))}
    model = VAE(lambda p, x: (x @ p["in"], x @ p["in"] - 9.0), lambda p, z: z @ p["in"].T)
    with pytest.raises(ValueError, match=r"encode: expected .* images \(3, 4, 3\) .*TypeError"):
        model.check(params, np.zeros((3, 4, 3), np.float32))
