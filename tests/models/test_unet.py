import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.programs import compiled, perturbed
from uno_jax import models
from uno_jax.models import unet

IMAGES = jax.random.normal(jax.random.key(0), (3, 8, 12, 2))
TIMES = jnp.array([0.0, 10.0, 900.0])
LABELS = jnp.array([0, 4, 5])
INPUTS = IMAGES, TIMES, LABELS


def tiny(**changes):
    chosen = {"width": 8, "multipliers": (1, 2), "blocks": 1, "classes": 5, **changes}
    return models.UNet(**chosen)


def apply(model, params, *arrays, **options):
    return compiled(lambda p, *a: model.apply({"params": p}, *a, **options), params, *arrays)


def test_the_default_is_the_published_size_for_32x32():
    """DDPM, appendix B: 35.7 million; with labels, and scale beside shift, ours has 38.4."""
    model = models.UNet()
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)), jnp.zeros(1), jnp.zeros(1, int)
    )
    assert 35e6 < models.parameter_count(shapes) < 40e6
    output = jax.eval_shape(
        model.apply, shapes, jnp.zeros((2, 32, 32, 3)), jnp.zeros(2), jnp.zeros(2, int)
    )
    assert output.shape == (2, 32, 32, 3) and output.dtype == jnp.float32


def test_it_starts_at_zero_and_learned_variance_doubles_the_channels():
    model = tiny(learned_variance=True)
    params = compiled(model.init, jax.random.key(1), IMAGES, TIMES, LABELS)["params"]
    output = apply(model, params, IMAGES, TIMES, LABELS)
    assert output.shape == (3, 8, 12, 4)
    np.testing.assert_array_equal(output, 0)


def test_times_and_labels_speak_up_from_the_start():
    """With the transformer's vectors of length 0.02 a U-Net takes long to hear its label."""
    embeddings = unet.condition_embeddings(classes=5, width=64)
    for embedding, values in zip(embeddings, (TIMES, LABELS), strict=True):
        variables = embedding.init(jax.random.key(0), values)
        spread = float(jnp.std(embedding.apply(variables, values)))
        assert 0.3 < spread < 1.5


def test_every_condition_matters_and_examples_do_not_meet():
    model = tiny()
    params = perturbed(model, *INPUTS)
    arrays = [jnp.concatenate([part] * 3) for part in (IMAGES, TIMES, LABELS)]
    changed = arrays[1].at[3:6].add(5), arrays[2].at[6:].set(2)
    base, times, labels = np.split(apply(model, params, arrays[0], *changed), 3)
    for other in (times, labels):
        assert (np.abs(other - base).max(axis=(1, 2, 3)) > 1e-3).all()
    alone = apply(model, params, IMAGES[1:2], TIMES[1:2], LABELS[1:2])
    np.testing.assert_allclose(base[1:2], alone, rtol=1e-4, atol=1e-4)


def test_remat_changes_nothing_but_memory():
    params = perturbed(tiny(), *INPUTS)

    def slope(network):
        def loss(p):
            return jnp.sum(network.apply({"params": p}, IMAGES, TIMES, LABELS) ** 2)

        return compiled(jax.grad(loss), params)

    for a, b in zip(*(jax.tree.leaves(slope(tiny(remat=r))) for r in (False, True)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(a).max())


def test_bfloat16_computes_near_float32_and_keeps_its_parameters():
    low = tiny(dtype=jnp.bfloat16)
    params = perturbed(low, *INPUTS)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    expected = apply(tiny(), params, IMAGES, TIMES, LABELS)
    got = apply(low, params, IMAGES, TIMES, LABELS)
    assert got.dtype == jnp.float32
    error = float(jnp.linalg.norm(got - expected) / jnp.linalg.norm(expected))
    assert error < 8 * float(jnp.finfo(jnp.bfloat16).eps)


def test_dropout_acts_in_training_alone():
    model = tiny(dropout=0.5)
    params = perturbed(model, *INPUTS)
    arguments = model, params, IMAGES, TIMES, LABELS
    moved = [apply(*arguments, train=True, rngs={"dropout": jax.random.key(i)}) for i in range(2)]
    assert np.abs(moved[0] - moved[1]).max() > 1e-2
    without = apply(tiny(), *arguments[1:])
    np.testing.assert_array_equal(apply(*arguments), without)


def test_sides_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"UNet: expected sides that 2 divides, got \(7, 8\)"):
        tiny().init(jax.random.key(0), jnp.zeros((1, 7, 8, 2)), TIMES[:1], LABELS[:1])


def test_patches_are_squares_of_pixels_and_come_back():
    model = tiny(patch=2, multipliers=(1,), attention=())
    params = perturbed(model, *INPUTS)
    output = apply(model, params, *INPUTS)
    assert output.shape == IMAGES.shape
    assert params["input"]["kernel"].shape == (3, 3, 2 * 2 * 2, 8)
    squares = unet.to_patches(IMAGES, 2)
    np.testing.assert_array_equal(squares[1, 2, 3].reshape(2, 2, 2), IMAGES[1, 4:6, 6:8])
    np.testing.assert_array_equal(unet.from_patches(squares, 2), IMAGES)
