import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from uno_jax import models

SMALL = {"channels": (4, 8, 8), "latents": 6, "side": 16}


def build(**changes):
    model = models.ConvVAE(**SMALL | changes)
    shape = (3, model.side, model.side, 3)
    images = jax.random.uniform(jax.random.key(1), shape, minval=-1)
    variables = jax.jit(lambda key, x, z: model.init(key, x, z, train=True))(
        jax.random.key(0), images, jnp.zeros((3, model.latents))
    )
    return model, variables, images


def test_the_published_shapes():
    model = models.ConvVAE()
    variables = jax.eval_shape(
        lambda: model.init(
            jax.random.key(0), jnp.zeros((2, 64, 64, 3)), jnp.zeros((2, 512)), train=True
        )
    )
    params = variables["params"]
    assert [params["encoder"][f"down{i}"]["kernel"].shape[2:] for i in range(5)] == [
        (3, 32),
        (32, 64),
        (64, 128),
        (128, 256),
        (256, 512),
    ]
    assert params["encoder"]["mean"]["kernel"].shape == (2048, 512)
    assert [params["decoder"][f"up{i}"]["kernel"].shape[2:] for i in range(5)] == [
        (512, 256),
        (256, 128),
        (128, 64),
        (64, 32),
        (32, 32),
    ]
    assert params["decoder"]["output"]["kernel"].shape == (3, 3, 32, 3)


def test_the_loss_is_squared_error_and_kl():
    model, variables, images = build()
    params, stats = variables["params"], variables["batch_stats"]
    key = jax.random.key(2)
    loss_fn = jax.jit(models.make_vae_loss(model, norm="running"))
    loss, _ = loss_fn(params, stats, {"image": images}, key)
    noise = jax.random.normal(key, (3, 6))
    mean, log_variance = jax.jit(lambda v, x: model.apply(v, x, method="encode"))(variables, images)
    latents = mean + jnp.exp(0.5 * log_variance) * noise
    pictures = jax.jit(lambda z: models.decode(model, params, stats, z))(latents)
    assert pictures.shape == images.shape
    assert np.abs(pictures).max() <= 1
    error = np.sum((np.asarray(pictures) - np.asarray(images)) ** 2)
    kl = 0.5 * np.sum(mean**2 + np.exp(log_variance) - 1 - log_variance)
    np.testing.assert_allclose(loss, error + kl, rtol=1e-5)


def test_every_form_of_the_layers_gives_the_same_loss_gradient_and_product():
    results = []
    for form in ("plain", "matrix"):
        model, variables, images = build(form=form)
        loss_fn = models.make_vae_loss(model)

        def loss(params, loss_fn=loss_fn, variables=variables, images=images):
            batch = {"image": images}
            return loss_fn(params, variables["batch_stats"], batch, jax.random.key(0))[0]

        params = variables["params"]
        tangent = jax.tree.map(jnp.ones_like, params)
        products = jax.jit(lambda p, t, f=loss: jax.jvp(jax.value_and_grad(f), (p,), (t,)))
        (value, gradient), (_, product) = products(params, tangent)
        results.append((value, gradient, product))
    for plain, matrix in zip(*results, strict=True):
        difference = optax.tree.norm(optax.tree.sub(plain, matrix))
        assert difference < 1e-5 * optax.tree.norm(plain)


def test_features_and_the_rest_of_the_decoder_are_the_decoder():
    model, variables, _ = build()
    z = jax.random.normal(jax.random.key(3), (5, 6))
    whole = jax.jit(lambda z: model.apply(variables, z, method="decode"))(z)
    for depth in range(4):

        @jax.jit
        def drawn_from(z, d=depth):
            features = model.apply(variables, z, d, method="features")
            rest = lambda m, x: m.decoder.draw(x, train=False, depth=d)  # noqa: E731
            return model.apply(variables, features, method=rest)

        drawn = drawn_from(z)
        np.testing.assert_allclose(drawn, whole, rtol=1e-5, atol=1e-6)


def test_bfloat16_convolutions_keep_float32_parameters_and_loss():
    model, variables, images = build(dtype=jnp.bfloat16)
    chex.assert_trees_all_equal_dtypes(
        variables["params"], jax.tree.map(lambda x: x.astype(jnp.float32), variables["params"])
    )
    exact = build()[0]
    losses = [
        jax.jit(models.make_vae_loss(m))(
            variables["params"], variables["batch_stats"], {"image": images}, jax.random.key(0)
        )[0]
        for m in (model, exact)
    ]
    assert losses[0].dtype == jnp.float32
    eps = float(jnp.finfo(jnp.bfloat16).eps)
    np.testing.assert_allclose(losses[0], losses[1], rtol=8 * eps)


@pytest.mark.parametrize("name", ["uno", "surgery", "uno-s"])
def test_a_step_of_the_methods_is_finite_and_moves_the_statistics(name):
    model, variables, images = build()
    method = uno.methods.get_method(name)
    tx = method.build(optax.adam(1e-3), weight=1e3)
    step = jax.jit(
        chex.assert_max_traces(
            uno.make_unlearning_step(models.make_vae_loss(model), tx, has_model_state=True), n=1
        )
    )
    state = uno.create_state(
        variables["params"], tx, jax.random.key(0), model_state=variables["batch_stats"]
    )
    for _ in range(2):
        state, metrics = step(state, {"image": images}, {"image": -images})
    chex.assert_tree_all_finite((state.params, metrics))
    moved = state.model_state["decoder"]["norm0"]["mean"]
    assert not np.allclose(moved, variables["batch_stats"]["decoder"]["norm0"]["mean"])


def test_a_side_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of 8, got 20"):
        build(side=20)


@pytest.mark.parametrize(
    "model", [models.AttributeCNN(channels=(8, 8)), models.AttributeMixer(width=16, depth=1)]
)
def test_classifiers_learn_an_attribute(model):
    rng = np.random.default_rng(0)
    labels = rng.random((64, 40)) < 0.5
    images = rng.normal(0, 0.1, (64, 16, 16, 3)).astype(np.float32)
    images[labels[:, 3], :8] += 0.5
    tx = optax.adam(3e-3)
    loss_fn = models.make_attribute_loss(model, shift=1)
    step = jax.jit(uno.make_training_step(loss_fn, tx))
    params = model.init(jax.random.key(0), images)["params"]
    state = uno.create_state(params, tx, jax.random.key(0))
    for _ in range(60):
        state, _ = step(state, {"image": images, "attributes": labels})
    logits = model.apply({"params": state.params}, images)
    assert logits.shape == (64, 40)
    features = model.apply({"params": state.params}, images, method="embed")
    assert features.ndim == 2
    assert np.mean((logits[:, 3] > 0) == labels[:, 3]) > 0.9
