"""A conditional diffusion model forgets a class: a small transformer on digits, or DiT-XL/2.

    python -m experiments.dit                      # 5,000 embedded digits, two cores
    python -m experiments.dit --data mnist         # all of MNIST (TFDS_DATA_DIR)
    python -m experiments.dit --model unet
    python -m experiments.dit --preset imagenet --weights FILE --latents FILE

Trains a class-conditional model and the yardstick that never saw the digit, unlearns with
each method from the same parameters, and writes a report with grids per class. The
forgotten label shall give the exchange class, and the null label all digits but the
forgotten one. How each method is run, and which parameters it moves, is in `dit_settings`;
`--trainable ''` has all move, as published, where methods that ascend are stopped by the guide.
Two judges of other architecture take no part in any method. The first method's model is
audited. `--preset imagenet` is the published setting, see `dit_imagenet`.
"""

import dataclasses
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script runs from any folder

import uno_jax as uno
from experiments import (
    audits,
    common,
    devices,
    dit_imagenet,
    dit_lab,
    dit_methods,
    dit_models,
    dit_report,
    dit_settings,
    resumable,
)
from experiments.dit_settings import CONTROL
from uno_jax import models

MethodName = Literal[
    "redirect-adam", "uno", "surgery", "uno-s", "ascent", "esd-x", "esd-u", "salun",
    "salun-relabel", "surgery-ascent", "surgery-descent", "ascent-descent", "orthogonal-ascent",
    "retain-descent", "retain-only",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Options:
    """Make a conditional diffusion model forget a class."""

    preset: Literal["mnist", "imagenet"] = "mnist"
    """mnist: everything from scratch; imagenet: published weights and latents of yours."""
    data: Literal["mnist5k", "mnist"] = "mnist5k"
    """mnist5k: 5,000 digits that come with the package; mnist: TFDS, in TFDS_DATA_DIR."""
    model: Literal["dit", "unet"] = "dit"
    """The network: a transformer or a U-Net."""
    forget: int | None = None
    """The label to forget: 1; imagenet: 207."""
    exchange: int | None = None
    """The label whose images come in its place: 7; imagenet: 208."""
    method: tuple[MethodName, ...] = (
        "redirect-adam", "uno", "surgery", "uno-s", "ascent", "esd-x", "esd-u", "salun",
        "salun-relabel", "retain-descent", "retain-only",
    )  # fmt: skip
    """Methods, each from the same model. retain-descent is the control that has the same
    retain loss, with the exchange in it; retain-only only goes on training."""
    seed: int = 0
    """Decides initial parameters, batches and noise."""
    out: Path | None = None
    """The run's folder; runs/dit-MODEL or runs/dit-imagenet by default."""
    steps: int = 50
    """Steps of a method."""
    decay: bool | None = None
    """Whether the learning rate rises for a tenth of the steps and then falls to zero: yes;
    imagenet: constant, as published."""
    replay: int | None = None
    """Samples of the original model beside the images of each retain batch: as many;
    imagenet: 0, as published."""
    stop_below: float = 0.01
    """Stop a method that ascends in all parameters when the guide takes fewer than this fraction
    of 128 samples for the digit, looked at every fifth step (of other methods every tenth)."""
    weight: float | None = None
    """w of UNO: 0.01; imagenet: 0.02."""
    hessian: Literal["exact", "finite-difference"] = "exact"
    """How UNO takes its products: a difference of gradients takes less time and memory."""
    learning_rate: float | None = None
    """Of Adam in unlearning: that of the method in `dit_settings`; imagenet: 1e-4."""
    batch_size: int | None = None
    """Examples per batch, of each kind: 32, of the U-Net 64; imagenet: 10."""
    trainable: str | None = None
    """Regular expression of the parameters that the gradient methods train, '' for all: those of
    the method in `dit_settings`; imagenet and U-Net: all. Paths look like
    block_3/modulation/kernel."""
    train_steps: int | None = None
    """Training steps of the model and of the yardstick: 6,000, of the U-Net 800."""
    train_batch_size: int = 64
    """Images per step of training."""
    train_learning_rate: float = 1e-3
    """Of Adam in training, at its highest."""
    judge_steps: int = 1200
    """Training steps of each classifier."""
    samples: int = 100
    """Samples per label that the table's fractions are counted on."""
    null_samples: int = 500
    """Unconditional samples."""
    audit_samples: int = 1000
    """Samples of each model that are audited."""
    sampler: Literal["dpm", "ddim", "ddpm"] = "dpm"
    """Sampler of the evaluation."""
    sampling_steps: int = 12
    """Its steps."""
    guidance: float = 2.0
    """Scale of classifier-free guidance; the unguided model is evaluated too."""
    weights: Path | None = None
    """imagenet: DiT weights, npz or safetensors, published or diffusers names."""
    latents: Path | None = None
    """imagenet: npz of latents and labels, or a folder of array_record files."""
    published: Path | None = None
    """imagenet: CSV of the published table, to stand beside."""
    size: str = "XL/2"
    """imagenet: size and patch of the DiT."""
    mesh: str = ""
    """Devices to spread batches and large arrays over, such as data=4,fsdp=2."""
    backend: devices.Backend = "jit"
    """jit, or pmap: a copy of the state on every device of this process."""


DEFAULTS = {
    "mnist": {
        "forget": 1, "exchange": 7, "weight": 0.01, "decay": True,
    },
    "imagenet": {
        "forget": 207, "exchange": 208, "weight": 0.02, "learning_rate": 1e-4, "batch_size": 10,
        "decay": False, "replay": 0,
    },
}  # fmt: skip
TRAIN_STEPS = {"dit": 6000, "unet": 800}
BATCH_SIZE = {"dit": 32, "unet": 64}
IGNORED = "out", "mesh", "audit_samples"
"""Options that a run's folder does not depend on."""


def resolve(options: Options) -> Options:
    """Fills in what the preset decides.

    Raises:
      ValueError: for labels that cannot be exchanged.
    """
    chosen = {
        name: value
        for name, value in DEFAULTS[options.preset].items()
        if getattr(options, name) is None
    }
    if options.train_steps is None:
        chosen["train_steps"] = TRAIN_STEPS[options.model]
    if options.preset == "mnist":
        size = options.batch_size or BATCH_SIZE[options.model]
        chosen["batch_size"] = size
        chosen["replay"] = size if options.replay is None else options.replay
    name = "dit-imagenet" if options.preset == "imagenet" else f"dit-{options.model}"
    options = dataclasses.replace(options, **chosen, out=options.out or Path("runs") / name)
    classes = 10 if options.preset == "mnist" else 1000
    pair = options.forget, options.exchange
    if not all(0 <= label < classes for label in pair) or pair[0] == pair[1]:
        raise ValueError(
            f"forget, exchange: expected two labels from 0 to {classes - 1}, got {pair}."
        )
    return options


def where(options: Options) -> devices.Devices:
    """How the steps are run."""
    return devices.choose(options.mesh, options.backend)


def train(options: Options, lab: dit_lab.Lab, folder: common.RunFolder, name: str):
    """Trains the model, or the yardstick: its forgotten label has images of the exchange
    class, and no image of the forgotten class is in its data.
    """  # noqa: D205
    images, labels = lab.images, lab.train.labels
    if name == "retrained":
        kept, other = (
            np.flatnonzero(mask) for mask in (labels != options.forget, labels == options.exchange)
        )
        images = np.concatenate([images[kept], images[other]])
        labels = np.concatenate([labels[kept], np.full(len(other), options.forget, np.int32)])
    return dit_models.train(
        folder,
        name,
        lab.network,
        dit_models.batches(
            images,
            labels,
            np.arange(len(labels)),
            batch_size=options.train_batch_size,
            seed=options.seed,
        ),
        steps=options.train_steps,
        learning_rate=options.train_learning_rate,
        seed=options.seed,
        devices=where(options),
    )


def unlearn(options: Options, lab: dit_lab.Lab, folder, name: str, original) -> uno.training.Result:
    """Runs one method from the original model, or takes what its checkpoint holds."""
    method, how = dit_settings.protocol(options, name)
    there = where(options)
    job = dit_methods.prepare(method, how, lab.model(original, how.replay), there.axis_name)
    stopped = dit_settings.setting(options, name).stopped
    return resumable.unlearn_or_restore(
        folder,
        f"after-{name}",
        job.step,
        job.start(jax.random.key(options.seed)),
        lambda: job.streams(options.seed + 1),
        steps=options.steps,
        # What nothing is stopped by is looked at less often.
        evaluate=partial(lab.watch, every=5 if stopped else 10),
        forgotten=(lambda row: row.get("guide_fraction", 1.0) < options.stop_below)
        if stopped
        else None,
        devices=there,
    )


def main(options: Options) -> dict:
    """Runs the experiment and returns what metrics.json holds."""
    options = resolve(options)
    started = time.perf_counter()
    folder = common.RunFolder(options.out, options, ignore=IGNORED)
    if options.preset == "imagenet":
        return dit_imagenet.run(options, folder, dit_settings.protocol, where(options))
    lab = dit_lab.Lab(options, folder, where(options))
    common.console.print(
        f"{lab.train.name}: digit {options.forget} to be forgotten, {options.exchange} in its place"
    )
    original = train(options, lab, folder, "before")
    retrained = train(options, lab, folder, "retrained")

    rows, pictures, histories = {}, {}, {}
    after: dict[str, Any] = {}

    def record(name, params, **facts):
        rows[name], pictures[name] = dit_lab.look_or_restore(folder, lab, name, params, original)
        rows[name] |= facts

    def record_trained(name, params):
        seconds = resumable.seconds_of(folder, name)
        record(name, params, steps=options.train_steps, seconds=seconds, moves=1.0)

    record_trained("before", original)
    for name in options.method:
        result = unlearn(options, lab, folder, name, original)
        histories[name] = result.history
        last = result.history[-1]
        after[name] = dit_methods.whole(result.state)
        record(
            name,
            after[name],
            steps=last["step"],
            seconds=last["seconds"],
            moves=models.parameter_count(result.state.params) / models.parameter_count(original),
        )
    record_trained("retrained", retrained)

    results = {
        "models": rows,
        "accuracies": lab.accuracies,
        "options": folder.config,
        "seconds_training": sum(rows[name]["seconds"] for name in ("before", "retrained")),
        "seconds_unlearning": sum(rows[name]["seconds"] for name in options.method),
        "seconds": time.perf_counter() - started,
        **common.facts(),
    }
    folder.write_json("metrics", results)
    dit_report.write_report(options, folder, results, pictures, histories)
    first = options.method[0]
    subjects = {"before": original, "after": after[first], "retrained": retrained}
    if CONTROL in after:
        subjects["control"] = after[CONTROL]
    cost = {"seconds": rows[first]["seconds"], "retraining_seconds": rows["retrained"]["seconds"]}
    audits.of_digits(options, lab, folder, subjects, first, steps=rows[first]["steps"], cost=cost)
    return results


if __name__ == "__main__":
    common.run(main, Options)
