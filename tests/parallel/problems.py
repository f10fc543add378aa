"""Small models, each with a loss whose noise travels in the batch.

The same noise then meets the same example however the batch is spread.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.models.programs import compiled, perturbed
from tests.transforms.problems import mlp_batch, mlp_loss, mlp_params
from uno_jax import models

EXAMPLES = 16


class Problem(NamedTuple):
    """A loss, how it reduces a batch, where it starts, and two batches."""

    loss_fn: object
    reduction: str
    params: object
    model_state: object
    retain: dict
    forget: dict


def _vae(model, shape):
    def loss_fn(params, model_state, batch, key):
        del key
        output, changed = model.apply(
            {"params": params, "batch_stats": model_state},
            batch["image"],
            batch["noise"],
            train=True,
            mutable=["batch_stats"],
        )
        error, kl = models.elbo_terms(model, output, batch["image"])
        return jnp.sum(error) + jnp.sum(kl), changed["batch_stats"]

    def batch(seed):
        keys = jax.random.split(jax.random.key(seed))
        return {
            "image": jax.random.uniform(keys[0], (EXAMPLES, *shape)),
            "noise": jax.random.normal(keys[1], (EXAMPLES, model.latents)),
        }

    retain, forget = batch(1), batch(2)
    variables = compiled(
        lambda key, *arrays: model.init(key, *arrays, train=True),
        jax.random.key(0), retain["image"], retain["noise"],
    )  # fmt: skip
    return Problem(loss_fn, "sum", variables["params"], variables["batch_stats"], retain, forget)


def _dit(stacked):
    depth = 2 if stacked else 1
    model = models.DiT(
        patch=4, depth=depth, width=32, heads=4, classes=3, scan=stacked, remat=stacked
    )

    def loss_fn(params, model_state, batch, key):
        del key
        arrays = batch["image"], batch["time"], batch["label"]
        return jnp.mean((model.apply({"params": params}, *arrays) - batch["noise"]) ** 2), None

    def batch(seed):
        rng = np.random.default_rng(seed)
        images, noise = rng.normal(size=(2, EXAMPLES, 8, 8, 1)).astype(np.float32)
        times = rng.uniform(size=EXAMPLES).astype(np.float32)
        images = images + noise * times[:, None, None, None]
        labels = rng.integers(0, 3, EXAMPLES).astype(np.int32)
        return {"image": images, "noise": noise, "time": times, "label": labels}

    retain, forget = batch(1), batch(2)
    params = perturbed(model, retain["image"], retain["time"], retain["label"])
    params = models.stack_blocks(params) if stacked else params
    return Problem(loss_fn, "mean", params, None, retain, forget)


def _mlp():
    def loss_fn(params, model_state, batch, key):
        del key
        return mlp_loss(params, (batch["x"], batch["y"])), model_state

    retain, forget = (
        dict(zip("xy", mlp_batch(s, EXAMPLES, (3, 8, 2)), strict=True)) for s in (1, 2)
    )
    return Problem(loss_fn, "mean", mlp_params(0, (3, 8, 2)), None, retain, forget)


def build(name: str, axis_name: str | None = None) -> Problem:
    """A problem by name; batch norm takes its statistics over a mapped axis, if there is one."""
    if name == "mnist-vae":
        return _vae(models.MnistVAE(hidden=32, axis_name=axis_name), (784,))
    if name == "conv-vae":
        model = models.ConvVAE(channels=(8,), latents=8, side=8, axis_name=axis_name)
        return _vae(model, (8, 8, 3))
    if name == "mlp":
        return _mlp()
    return _dit(stacked=name == "dit-stacked")
