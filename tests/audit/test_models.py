"""Audits of a VAE and a diffusion model of ours, of an Equinox and of an NNX model."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.audit import mixture
from uno_jax import audit, diffusion, models

QUICK = audit.Settings(
    samples=200, examples=40, draws=1, judge_steps=60, retain_steps=(2,), forget_steps=(1,),
    forget_examples=(2,), relearn_samples=100, batch_size=16, resamples=20,
)  # fmt: skip


def noise(seed, count, level, shape):
    """Dark or bright noise in [0, 1]."""
    rng = np.random.default_rng(seed)
    images = np.clip(rng.normal(level, 0.1, (count, *shape)), 0, 1).astype(np.float32)
    return {"image": images, "label": np.full(count, int(level > 0.5))}


def two_sides(shape):
    return audit.Data(
        *(noise(seed, 120, level, shape) for seed, level in enumerate((0.3, 0.7, 0.3, 0.7)))
    )


def test_a_vae_goes_on_training_in_both_modes_of_batch_norm():
    model = models.MnistVAE(hidden=16)
    shapes = jnp.zeros((2, 784)), jnp.zeros((2, 2))
    trees = {
        name: dict(jax.jit(lambda k: model.init(k, *shapes, train=True))(jax.random.key(seed)))
        for seed, name in enumerate(("before", "after"))
    }
    bias = trees["before"]["params"]["decoder"]["logits"]["bias"]
    trees["before"]["params"]["decoder"]["logits"]["bias"] = bias + 0.8
    case = audit.Case(two_sides((784,)), trees, audit.vae(model), steps=2)
    found = audit.run(case, settings=QUICK).found
    after = found["models"]["after"]
    assert set(after["relearning"]["retain"]) == {
        "batch norm in training mode",
        "batch norm frozen",
    }
    influence = after["influence"]["before"]
    key = jax.random.key(0)
    assert influence["encoder_kl"]["value"] > 0
    # The loss is the negative ELBO.
    images = jnp.asarray(two_sides((784,)).retain["image"][:3])
    tree = trees["after"]
    expected = models.negative_elbo(model, tree["params"], tree["batch_stats"], images, key)
    got = audit.vae(model).loss_fn(trees["after"], {"image": images}, key)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert "control" in found["models"]


def test_a_denoiser_draws_its_labels_and_has_a_loss_of_each_example():
    process = diffusion.Diffusion(
        lambda params, noisy, times, labels: noisy * params["scale"][labels][:, None],
        diffusion.cosine(50),
        prediction="v",
        null_label=2,
    )
    model = audit.denoiser(process, (4,), steps=3, sampler="ddim")
    params = {"scale": jnp.array([0.1, 0.2, 0.3])}
    key = jax.random.key(1)
    assert model.sample(params, key, 5).shape == (5, 4)
    batch = {"image": np.ones((6, 4), np.float32), "label": np.array([0, 1] * 3)}
    losses = model.loss_fn(params, batch, key)
    assert losses.shape == (6,)
    # One at a time, with the same key each.
    loss = diffusion.make_diffusion_loss(process)
    keys = jax.random.split(key, 6)
    for i in range(6):
        one = {name: jnp.asarray(value[i : i + 1]) for name, value in batch.items()}
        np.testing.assert_allclose(losses[i], loss(params, one, keys[i]), rtol=1e-5)
    chosen = audit.denoiser(process, (4,), labels=lambda key, n: jnp.zeros(n, jnp.int32), steps=3)
    assert chosen.sample(params, key, 2).shape == (2, 4)
    with pytest.raises(ValueError, match="labels: expected a function, or a process with a null"):
        audit.denoiser(process._replace(null_label=None), (4,))


class Decoder(eqx.Module):
    """Noise to pictures."""

    layer: eqx.nn.Linear
    activation: object

    def __init__(self, key):
        self.layer = eqx.nn.Linear(2, 4, key=key)
        self.activation = jax.nn.sigmoid

    def __call__(self, latents):
        return self.activation(jax.vmap(self.layer)(latents))


class NnxDecoder(nnx.Module):
    """The same in NNX."""

    def __init__(self, rngs):
        self.layer = nnx.Linear(2, 4, rngs=rngs)

    def __call__(self, latents):
        return nnx.sigmoid(self.layer(latents))


def through(apply):
    """A model of a decoder that draws bright pictures before and dark ones after."""

    def sample(params, key, n):
        spread_key, key = jax.random.split(key)
        pictures = apply(params, jax.random.normal(key, (n, 2)))
        level = jnp.where(jax.random.bernoulli(spread_key, 0.5, (n, 1)), 1.0, -1.0)
        return jnp.clip(pictures + 0.2 * level, 0.0, 1.0)

    def loss_fn(params, batch, key):
        pictures = apply(params, jax.random.normal(key, (len(batch["image"]), 2)))
        return jnp.sum((pictures - batch["image"]) ** 2, axis=-1)

    return audit.Model(sample, loss_fn)


def check_audited(params, apply):
    """A model against itself has not forgotten; the control has moved."""
    model = through(apply)
    case = audit.Case(two_sides((4,)), {"before": params, "after": params}, model, steps=2)
    found = audit.run(case, settings=QUICK)
    assert found.verdict.name == audit.NOT_FORGOTTEN
    assert found.found["models"]["control"]["influence"]["before"]["output_change"] > 0


def test_an_equinox_model_is_audited():
    # Arrays are the parameters; what else the module holds is closed over.
    params, rest = eqx.partition(Decoder(jax.random.key(0)), eqx.is_inexact_array)
    check_audited(params, lambda p, z: eqx.combine(p, rest)(z))


def test_an_nnx_model_is_audited():
    graph, params = nnx.split(NnxDecoder(nnx.Rngs(0)))
    check_audited(params, lambda p, z: nnx.merge(graph, p)(z))


def test_a_loss_of_the_batch_is_refused():
    model = mixture.MODEL
    mean = audit.Model(model.sample, lambda *a: jnp.mean(model.loss_fn(*a)))
    with pytest.raises(ValueError, match="loss_fn: expected a loss of each example"):
        audit.run(mixture.case(model=mean), settings=QUICK)
