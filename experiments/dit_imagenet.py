"""The published setting: DiT-XL/2 on ImageNet latents, from weights and latents of yours.

    python -m experiments.dit --preset imagenet --weights DiT-XL-2-256x256.safetensors \
        --latents latents.npz --method uno surgery uno-s retain-descent

Forget label 207, exchange label 208, w = 0.02, Adam 1e-4, batch 10 of each kind, in bfloat16.
What a GPU needs for it has not been measured. How the files are made is said in
`uno_jax.data.load_latents` and `uno_jax.foreign.dit_variables`. For each method the run
holds the losses of every step, the seconds per step, the whole parameters as npz, and latents
sampled before and after for the forgotten, the exchange and eight further labels: decode
these with the VAE and judge them with a classifier that took no part.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common, devices, dit_methods, dit_models, resumable
from uno_jax import checkpoints, data, diffusion, foreign, models, report

GUIDANCE = 4.0
FURTHER = 8


def load(options) -> tuple[dit_methods.Model, Any]:
    """The published model with the class to forget, and its module.

    Raises:
      ValueError: if a file is not given.
    """
    for name in ("weights", "latents"):
        if getattr(options, name) is None:
            raise ValueError(f"preset imagenet: expected --{name} FILE, got none.")
    params = foreign.dit_variables(foreign.read_arrays(options.weights))["params"]
    params = jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), params)
    classes = params["label"]["table"].shape[0] - 1
    network = models.dit(options.size, classes=classes, dtype=jnp.bfloat16, remat=True)
    process = dit_models.latent_process(network)
    latents, labels = data.load_latents(options.latents)
    model = dit_methods.Model(
        process, params, latents.astype(np.float32), labels, options.forget, options.exchange
    )
    for side in ("forget", "exchange", "retain"):
        if not len(model.rows(side)):
            raise ValueError(f"latents: expected some to {side}, got none in {options.latents}.")
    return model, network


def run(
    options, folder: common.RunFolder, protocol: Callable, where: devices.Devices = devices.ONE
) -> dict:
    """Runs the methods and returns what metrics.json holds."""
    model, network = load(options)
    folder.data = checkpoints.fingerprint({"latents": model.images, "labels": model.labels})
    shape = model.images.shape[1:]
    kept = np.setdiff1d(np.unique(model.labels), [options.forget, options.exchange])[:FURTHER]
    labels = np.concatenate([[options.forget, options.exchange], kept])
    labels = np.repeat(labels, options.samples)

    @jax.jit
    def draw(params, key, labels):
        return diffusion.sample(
            model.process, params, key, labels, shape,
            sampler=options.sampler, steps=options.sampling_steps, guidance=GUIDANCE,
        )  # fmt: skip

    def samples(name, params):
        parts = [
            np.asarray(draw(params, jax.random.fold_in(jax.random.key(options.seed), i), part))
            for i, part in enumerate(np.split(labels, range(16, len(labels), 16)))
        ]
        file = folder.path / "samples" / f"{name}.npz"
        np.savez_compressed(file, latents=np.concatenate(parts), labels=labels)

    rows, histories = [], {}
    samples("before", model.original)
    for name in options.method:
        method, how = protocol(options, name)
        job = dit_methods.prepare(method, how, model, where.axis_name)
        result = resumable.unlearn_or_restore(
            folder,
            f"after-{name}",
            job.step,
            job.start(jax.random.key(options.seed)),
            lambda job=job: job.streams(options.seed + 1),
            steps=options.steps,
            devices=where,
        )
        params = dit_methods.whole(result.state)
        samples(f"after {name}", params)
        arrays = foreign.to_torch(
            {"params": params}, foreign.dit_original(network.depth, shape[-1])
        )
        np.savez(folder.path / f"after-{name}.npz", **arrays)
        histories[name] = result.history
        first, last = result.history[0], result.history[-1]
        rows.append(
            {
                "method": name,
                "steps": str(len(result.history)),
                "seconds": f"{last['seconds']:.1f}",
                **{
                    f"{side} loss, first and last": f"{first[side]:.4f}, {last[side]:.4f}"
                    for side in ("retain_loss", "forget_loss")
                },
            }
        )
    rows += published(options.published)
    results = {"rows": rows, "options": folder.config, **common.facts()}
    folder.write_json("metrics", results)
    figure = report.curves(
        folder.figure("losses"),
        {
            f"{name}, {side}": ([r["step"] for r in h], [r[f"{side}_loss"] for r in h])
            for name, h in histories.items()
            for side in ("retain", "forget")
        },
        xlabel="step",
        ylabel="loss",
    )
    page = report.write_page(
        folder.path / "report.html",
        title=f"Forgetting label {options.forget}, exchange label {options.exchange}",
        summary=[
            "Losses on the batches of the first and of the last step. What the model now draws is "
            "in samples/, as latents: nothing here has judged it."
        ],
        rows=rows,
        figures={"Losses of the two batches.": figure},
        facts={key: results[key] for key in ("command", "versions", "device")},
    )
    common.print_table(rows)
    common.console.print(f"report: {page}")
    return results


NAMES = {"s": "surgery", "o": "uno", "os": "uno-s"}


def published(file: Path | None) -> list[dict[str, str]]:
    """Rows of the published table, to stand beside ours.

    Args:
      file: CSV with columns Label, Step, Time, FID and Time/Step; None for no rows.
    """
    if file is None:
        return []
    with file.open(newline="") as lines:
        return [
            {
                "method": f"published {NAMES.get(row['Label'], row['Label'])}",
                "steps": row["Step"],
                "seconds": row["Time"],
                "FID": row["FID"],
            }
            for row in csv.DictReader(lines)
        ]
