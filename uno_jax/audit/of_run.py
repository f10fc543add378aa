"""The audit of what `uno-forget` did, from the same case."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uno_jax import checkpoints, diffusion
from uno_jax.audit import case as cases
from uno_jax.audit.adapters import denoiser
from uno_jax.audit.relearning import adam_trainer
from uno_jax.case import Case
from uno_jax.forgetting_cli import HISTORY, PARAMS
from uno_jax.generative.vae import VAE
from uno_jax.training.examples import Examples, read_examples


def case_of_run(case: Case, run: str | Path) -> cases.Case:
    """Makes the case of an audit from the one that a model was made to forget by.

    How the models are sampled and what their losses are follows from the family.

    Args:
      case: what `uno-forget` was told.
      run: its folder, of a run that is complete.

    Returns:
      An `audit.Case` of the model before and after.

    Raises:
      FileNotFoundError: if the folder holds no complete run.
      ValueError: if its parameters are not of this model, or the family cannot be sampled.
    """
    run = Path(run)
    if not (run / HISTORY).exists():
        raise FileNotFoundError(f"run: expected the folder of a complete run, got {run}.")
    said = json.loads((run / HISTORY).read_text())
    params = jax.tree.map(jnp.asarray, case.params)
    given = ("retain", "forget", "retain_held_out", "forget_held_out")
    sides = {
        name: read_examples(getattr(case, name), name)
        for name in given
        if getattr(case, name) is not None
    }
    return cases.Case(
        data=cases.Data(**{name: side.arrays for name, side in sides.items()}),
        params={"before": params, "after": checkpoints.restore(run / PARAMS, params)},
        model=_model_of(case, params, sides["retain"], sides["forget"]),
        steps=said["steps"],
        about={name: said[name] for name in ("method", "cost", "exchange")},
    )


def _model_of(case: Case, params: Any, retain: Examples, forget: Examples) -> cases.Model:
    model = case.model
    if isinstance(model, VAE):
        first = retain.first(1)["image"]
        latents = jax.eval_shape(model.encode, params, first)[0].shape[1]
        return cases.Model(
            sample=lambda params, key, n: model.sample(params, key, n, latents=latents),
            loss_fn=model.example_loss,
            encode=lambda params, batch: model.encode(params, batch["image"]),
        )
    if not isinstance(model, diffusion.Diffusion):
        raise ValueError(
            f"model: expected a VAE or a Diffusion, which can be sampled, got "
            f"{type(model).__name__}; write an audit.Case."
        )
    if retain.labels:
        # As often as in the data that the model was trained on.
        counts = {**retain.labels, **forget.labels}
        known = jnp.asarray(list(counts), jnp.int32)
        shares = np.array(list(counts.values()), np.float32)
        shares = jnp.asarray(shares / shares.sum())

        def labels(key, n):
            return jax.random.choice(key, known, (n,), p=shares)

        return denoiser(model, retain.shape, labels=labels, **case.sampling)
    return _without_labels(model, retain.shape, dict(case.sampling))


def _without_labels(model: diffusion.Diffusion, shape: tuple[int, ...], sampling: dict):
    none = 0 if model.null_label is None else model.null_label
    loss = diffusion.make_diffusion_loss(model, conditional=False)

    def sample(params, key, n):
        return diffusion.sample(model, params, key, jnp.full(n, none), shape, **sampling)

    def loss_fn(params, batch, key):
        def one(image, example_key):
            return loss(params, {"image": image[None]}, example_key)

        return jax.vmap(one)(batch["image"], jax.random.split(key, len(batch["image"])))

    return cases.Model(sample, loss_fn, None, {"Adam": adam_trainer(loss_fn, 1e-4)})
