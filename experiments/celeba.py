"""CelebA: train a VAE on faces, make it forget an attribute or a person.

    python -m experiments.celeba --forget Male                           # TFDS_DATA_DIR
    python -m experiments.celeba --forget 'Male & ~Smiling' --data-dir DIR    # the download
    python -m experiments.celeba --forget 'identity == 1234'
    python -m experiments.celeba --forget-files FILE                     # one image name a line

Trains the convolutional VAE of the paper, three classifiers of the 40 attributes and the
yardstick that never saw the forgotten faces; unlearns with each method and seed from the
same checkpoint; and writes a report. The guide stops the gradient methods,
and has no part in the redirect; two judges of different architecture take no part in any.
The first method's model is audited.

`--out` holds what is trained once for all forget sets, and a folder for each of these.
Every stage goes on from its last checkpoint when the same command is given again. The
folder `publish` of a forget set shows generated faces only; `figures` and the report
also show reconstructions of real ones.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Literal

import jax

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script runs from any folder

import uno_jax as uno
from experiments import audits, celeba_models, celeba_report, common, devices, resumable
from experiments.celeba_lab import Lab, Target, train_fingerprint
from experiments.face_redirect import face_model
from experiments.vae_methods import Protocol, prepare
from uno_jax import data

MethodName = Literal[uno.methods.UNCONDITIONAL]
DataName = Literal[data.FACE_SOURCES]
PRESETS = {
    "small": {
        "channels": (16, 32, 64, 128, 256),
        "latents": 128,
        "crop": 0.8,
        "epochs": 20.0,
        "train_batch": 64,
        "decay": True,
        "judge_steps": 900,
        "steps": 25,
        "samples": 5000,
        "rebound_steps": 20,
    },
    "paper": {
        "channels": (32, 64, 128, 256, 512),
        "latents": 512,
        "crop": 1.0,
        "epochs": 100.0,
        "train_batch": 128,
        "decay": False,
        "judge_steps": 10_000,
        "steps": 659,
        "samples": 10_000,
        "rebound_steps": 100,
    },
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Make a VAE of faces forget an attribute or a person."""

    data: DataName | None = None
    """celeb_a and celeb_a_half: TFDS, in TFDS_DATA_DIR, alone or joined; folder: the
    download, in --data-dir. Left out: folder with --data-dir, otherwise celeb_a."""
    data_dir: Path | None = None
    """The download, with img_align_celeba/*.jpg and list_attr_celeba.txt."""
    cache_dir: Path | None = None
    """Where decoded faces are kept, the user's cache folder by default."""
    forget: str = "Male"
    """An attribute, an expression such as 'Male & ~Smiling', or 'identity == 1234'."""
    forget_files: Path | None = None
    """A file with one image name a line to forget, instead of --forget."""
    stage: Literal["train", "unlearn", "evaluate", "all"] = "all"
    """Where to stop; what is missing of the stages before is done first."""
    preset: Literal["small", "paper"] = "small"
    """small: half the channels, minutes on two cores; paper: the published model, a GPU."""
    method: tuple[MethodName, ...] = ("redirect", "uno", "surgery", "uno-s", "retain-descent")
    """Methods to run, each from the same trained model; retain-descent is the control."""
    seeds: int = 2
    """Runs of each method, with seeds that count up from --seed."""
    seed: int = 0
    """Decides initial parameters, batches, noise and latents."""
    out: Path = Path("runs/celeba")
    """The folder of the trained models, with one of each forget set inside."""
    redirect_steps: int = 5
    """Most steps of the redirect."""
    redirect_share: float = 0.1
    """Largest share of the forgotten that the redirect leaves anywhere in latent space;
    smaller forgets more and changes more of what is retained."""
    anchor_weight: float = 1.0
    """How much the redirect holds on to retained outputs."""
    norm: Literal["batch", "running"] = "batch"
    """Batch norm of the gradient methods: training mode, as published, or frozen."""
    warm: bool = False
    """Start Adam with the second moment of 50 retain gradients, rather than cold."""
    hat: float = 0.0
    """Weight of the hat: the guide then guides the gradient methods, 1e3 as published."""
    weight: float = 1e3
    """w of UNO, the weight of the squared cosine."""
    pull: float = 100.0
    """λ of Selective Amnesia."""
    learning_rate: float = 1e-3
    """Of Adam, in training and in unlearning."""
    batch_size: int = 128
    """Examples per batch in unlearning, of each kind."""
    stop_below: float = 0.02
    """Stop when the guide takes fewer than this fraction of 128 samples for forgotten."""
    save_every: int = 25
    """Unlearning steps between two checkpoints."""
    train_save_every: int = 250
    """Training steps between two checkpoints."""
    inception: Path | None = None
    """Inception-v3 weights for FID (npz or safetensors, names of pt_inception-2015-12-05)."""
    side: int = 64
    """Of the pictures, in pixels."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """In which the VAE's convolutions compute; parameters and sums stay float32."""
    channels: tuple[int, ...] | None = None
    """Of the VAE's convolutions; this and all below come from the preset."""
    latents: int | None = None
    """Dimension of the latent space."""
    crop: float | None = None
    """Side of the square cut from the centre, of the picture's shorter side."""
    epochs: float | None = None
    """Of training, of the VAE and of the yardstick."""
    train_batch: int | None = None
    """Examples per batch in training."""
    decay: bool | None = None
    """Whether the learning rate of training falls to zero."""
    judge_steps: int | None = None
    """Training steps of each classifier."""
    steps: int | None = None
    """Most unlearning steps of the gradient methods."""
    samples: int | None = None
    """Samples that the table's fractions are counted on."""
    rebound_steps: int | None = None
    """Steps of retain descent behind each method, to see what comes back."""
    audit_samples: int = 2000
    """Samples of each model that are audited."""
    mesh: str = ""
    """Devices to spread batches and large arrays over, such as data=4,fsdp=2."""
    backend: devices.Backend = "jit"
    """jit, or pmap: a copy of the state on every device of this process."""


# What the models that all forget sets share depend on; the rest is of one forget set.
SHARED = (
    *("data", "data_dir", "seed", "side", "dtype", "learning_rate", "channels", "latents"),
    *("crop", "epochs", "train_batch", "decay", "judge_steps", "backend"),
)
FREE = ("out", "cache_dir", "stage", "preset", "method", "seeds", "save_every")
FREE = (*FREE, "train_save_every", "inception", "mesh", "audit_samples")


def resolve(options: Options) -> Options:
    """Fills in what the preset and the kind of data decide."""
    source = options.data or ("folder" if options.data_dir else "celeb_a")
    preset = PRESETS[options.preset]
    chosen = {name: v for name, v in preset.items() if getattr(options, name) is None}
    return dataclasses.replace(options, data=source, **chosen)


def load(options: Options, split: str) -> data.Faces:
    """Loads a split, decoded on the first run, and reports what had to be skipped."""
    faces = data.load_faces(
        options.data,
        split,
        data_dir=options.data_dir,
        cache_dir=options.cache_dir,
        side=options.side,
        crop=options.crop,
        report=common.counter(f"decode {split}"),
    )
    common.console.print(f"{faces.name}: {len(faces.images):,} faces")
    if faces.skipped:
        names = ", ".join(faces.skipped[:10])
        common.console.print(
            f"skipped {len(faces.skipped)} that could not be decoded: {names}", style="yellow"
        )
    return faces


def unlearn(options: Options, lab: Lab, folder: common.RunFolder, original) -> dict:
    """Runs every method and seed, or takes what the folder holds.

    A gradient method stops when the guide sees few enough; the redirect
    makes its number of steps, and no classifier is asked.
    """
    fields = {field.name for field in dataclasses.fields(Protocol)}
    protocol = Protocol(**{k: v for k, v in vars(options).items() if k in fields})
    model = face_model(lab.vae, original, lab.train, lab.split, options.redirect_share)
    where = devices.choose(options.mesh, options.backend)
    results = {}
    for name in options.method:
        method = uno.methods.get_method(name)
        job = prepare(method, protocol, model, lab.eyes["guide"], 1, where.axis_name)
        results[name] = []
        for seed in range(options.seed, options.seed + options.seeds):
            begin = time.perf_counter()
            result = resumable.unlearn_or_restore(
                folder,
                f"{name}-{seed}",
                job.step,
                job.start(jax.random.key(seed)),
                lambda seed=seed, job=job: job.streams(1000 * (seed + 1)),
                steps=options.redirect_steps if method.matches else options.steps,
                evaluate=lab.look,
                forgotten=None
                if method.matches
                else lambda row: row["guide_fraction"] < options.stop_below,
                save_every=options.save_every,
                devices=where,
            )
            seconds = time.perf_counter() - begin
            results[name].append((result, seconds))
    return results


def evaluate(lab: Lab, folder: common.RunFolder, name: str, state, seed: int, **facts) -> dict:
    """Measures a model, or takes what was measured."""
    file = folder.path / "measured" / f"{name}.json"
    if not file.exists():
        row = lab.measure(state)
        row["rebound"] = {norm: lab.rebound(state, norm, seed) for norm in ("running", "batch")}
        file.parent.mkdir(exist_ok=True)
        common.write_whole(file, json.dumps({**row, **facts}))
    return json.loads(file.read_text())


def main(options: Options) -> dict:
    """Runs the experiment up to a stage and returns what metrics.json holds."""
    options = resolve(options)
    target = Target(options.forget, options.forget_files)
    names = {field.name for field in dataclasses.fields(options)}
    shared = common.RunFolder(options.out, options, ignore=tuple(names - set(SHARED)))
    folder = common.RunFolder(options.out / target.slug, options, ignore=(*SHARED, *FREE))
    train, test = load(options, "train"), load(options, "test")
    common.console.print(f"{target.text}: {target.split(train).describe()}")
    shared.data = folder.data = train_fingerprint(train)

    original = celeba_models.trained_vae(options, shared, "before", train, None)
    classifiers = {
        name: celeba_models.classifier(options, shared, train, name)
        for name in celeba_models.architectures()
    }
    lab = Lab(options, target, train, test, classifiers)
    retrained = celeba_models.trained_vae(options, folder, "retrained", train, lab.split.retain)
    if options.stage == "train":
        return {}
    unlearned = unlearn(options, lab, folder, original)
    if options.stage == "unlearn":
        return {}

    states = {"before": original, "retrained": retrained}
    rows = {
        name: [evaluate(lab, folder, name, state, options.seed)] for name, state in states.items()
    }
    for name, runs in unlearned.items():
        states[name] = runs[0][0].state
        rows[name] = [
            evaluate(
                lab,
                folder,
                f"{name}-{seed}",
                result.state,
                seed,
                steps=len(result.history),
                stopped=result.stopped,
                seconds=seconds,
            )
            for seed, (result, seconds) in enumerate(runs, start=options.seed)
        ]
    results = {
        "forget": target.text,
        "models": rows,
        "eyes": lab.accuracies(),
        "options": {**shared.config, **folder.config},
        **common.facts(),
    }
    folder.write_json("metrics", results)
    histories = {name: runs[0][0].history for name, runs in unlearned.items()}
    celeba_report.write_report(lab, folder, results, states, histories)
    first = options.method[0]
    subjects = {"before": original, "after": states[first], "retrained": retrained}
    if "retain-descent" in states:
        subjects["control"] = states["retain-descent"]
    audits.of_faces(options, lab, folder, subjects, first, steps=rows[first][0]["steps"])
    return results


if __name__ == "__main__":
    common.run(main, Options)
