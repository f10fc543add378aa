"""PyTorch layouts of the convolutional VAE, against sums written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uno_jax import foreign, models

CHANNELS = (3, 4)


@pytest.fixture(scope="module")
def made():
    model = models.ConvVAE(CHANNELS, latents=5, side=8)
    images = jnp.zeros((2, 8, 8, 3))
    variables = model.init(jax.random.key(0), images, jnp.zeros((2, 5)), train=True)
    leaves, structure = jax.tree.flatten(variables)
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(structure, noise)


def test_there_and_back_is_the_identity(made):
    entries = foreign.conv_vae(CHANNELS)
    arrays = foreign.to_torch(made, entries)
    assert arrays["encoder.0.0.weight"].shape == (3, 3, 4, 4)
    assert arrays["encoder.1.0.weight"].shape == (4, 3, 4, 4)
    assert arrays["decoder.0.0.weight"].shape == (4, 3, 4, 4)
    assert arrays["mean.weight"].shape == (5, 4 * 2 * 2)
    assert arrays["input.weight"].shape == (4 * 2 * 2, 5)
    back = foreign.from_torch(arrays, entries)
    jax.tree.map(np.testing.assert_array_equal, back, made)


def test_flattening_goes_channels_first_in_torch(made):
    """A `Linear` behind `flatten(1)` of (N, C, H, W), and one in front of a `view`."""
    arrays = foreign.to_torch(made, foreign.conv_vae(CHANNELS))
    pixels = np.random.default_rng(1).normal(size=(2, 2, 2, 4)).astype(np.float32)
    kernel = made["params"]["encoder"]["mean"]["kernel"]
    ours = pixels.reshape(2, -1) @ kernel
    theirs = pixels.transpose(0, 3, 1, 2).reshape(2, -1) @ arrays["mean.weight"].T
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)

    z = np.random.default_rng(2).normal(size=(2, 5)).astype(np.float32)
    theirs = (z @ arrays["input.weight"].T + arrays["input.bias"]).reshape(2, 4, 2, 2)
    layer = made["params"]["decoder"]["input"]
    ours = (z @ layer["kernel"] + layer["bias"]).reshape(2, 2, 2, 4)
    np.testing.assert_allclose(ours, theirs.transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-5)


def test_a_missing_array_is_named(made):
    arrays = foreign.to_torch(made, foreign.conv_vae(CHANNELS))
    del arrays["decoder.1.1.running_var"]
    with pytest.raises(ValueError, match=r"decoder\.1\.1\.running_var"):
        foreign.from_torch(arrays, foreign.conv_vae(CHANNELS))
