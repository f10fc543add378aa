"""MNIST: train a VAE, make it forget a digit, compare with retraining.

    python -m experiments.mnist                       # 5,000 embedded digits
    python -m experiments.mnist --data mnist          # all of MNIST (TFDS_DATA_DIR)
    python -m experiments.mnist --data mnist --reference DIR    # the published weights

Trains the VAE of the paper, three classifiers and the yardstick that never saw the
digit, unlearns with each method from the same checkpoint, and writes a report
with pictures. The guide, a perceptron, stops the gradient methods (below 2 %,
counted in evaluation mode after the update; the published code counts before it) and has
no part in the redirect; two judges of different architecture take no part in any and say
what is left. `samples/` holds 10,000 pictures of each model for judges of your own.
"""

import dataclasses
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script runs from any folder

import uno_jax as uno
from experiments import common, devices, mnist_report, published, redirect, resumable, training
from experiments.vae_methods import Protocol, prepare
from uno_jax import checkpoints, data, metrics, models

MethodName = Literal[uno.methods.UNCONDITIONAL]


@dataclasses.dataclass(frozen=True)
class Options:
    """Make an MNIST VAE forget a digit."""

    data: Literal["mnist5k", "mnist"] = "mnist5k"
    """mnist5k: 5,000 digits that come with the package; mnist: TFDS, in TFDS_DATA_DIR."""
    forget: Annotated[int, tyro.conf.arg(help="The digit to forget, 0 to 9.")] = 1
    method: tuple[MethodName, ...] = ("redirect", "uno", "surgery", "retain-descent")
    """Methods to run, each from the same trained model; retain-descent is the control."""
    seed: int = 0
    """Decides initial parameters, batches, noise and latents."""
    out: Path | None = None
    """The run's folder; runs/mnist-demo by default. The same folder continues a run."""
    steps: int = 100
    """Most unlearning steps of the gradient methods."""
    redirect_steps: int = 10
    """Most steps of the redirect."""
    redirect_tolerance: float = 0.0
    """Stop the redirect when its own loss falls by less than this fraction in a step."""
    anchor_weight: float = Protocol.anchor_weight
    """How much the redirect holds on to retained outputs."""
    norm: Literal["batch", "running"] = "batch"
    """Batch norm of the gradient methods: training mode, as published, or frozen."""
    warm: bool = False
    """Start Adam with the second moment of 50 retain gradients, rather than cold."""
    hat: float = 0.0
    """Weight of the hat: the guide then guides the gradient methods, 1e3 as published."""
    reference: Path | None = None
    """Folder with mnist_vae.npz and mnist_classifier.npz in PyTorch layout: unlearn that
    model, with that classifier as the guide, instead of training them."""
    stop_below: float = 0.02
    """Stop when the guide takes fewer than this fraction of 128 samples for the digit."""
    weight: float = 1e3
    """w of UNO, the weight of the squared cosine."""
    learning_rate: float = 1e-3
    """Of Adam, in training and in unlearning."""
    batch_size: int = 128
    """Examples per batch, of each kind."""
    train_steps: int = 3000
    """Training steps of the VAE and of the yardstick."""
    judge_steps: int = 1200
    """Training steps of each classifier."""
    samples: int = 10_000
    """Samples that the table's fractions are counted on."""
    mesh: str = ""
    """Devices to spread batches and large arrays over, such as data=4,fsdp=2."""
    backend: devices.Backend = "jit"
    """jit, or pmap: a copy of the state on every device of this process."""


def train_vae(
    options, folder, name, model, train, indices=None, where=devices.ONE
) -> uno.TrainState:
    """Trains the VAE on all examples, or on some."""
    step, state = training.fresh_vae(
        model, options.seed, options.learning_rate, axis_name=where.axis_name
    )
    return resumable.train_or_restore(
        folder,
        name,
        step,
        state,
        devices.per_process(data.batches)(
            train, indices, batch_size=options.batch_size, seed=options.seed
        ),
        steps=options.train_steps,
        devices=where,
    )


def unlearn(options, folder, method, model, guide, look, where=devices.ONE) -> uno.training.Result:
    """Runs one method from the original model.

    A gradient method stops when the guide sees few enough; the redirect
    makes its number of steps or stops by its own loss, and no classifier is asked.
    """
    fields = {field.name for field in dataclasses.fields(Protocol)}
    protocol = Protocol(**{k: v for k, v in vars(options).items() if k in fields})
    job = prepare(method, protocol, model, guide, options.forget, where.axis_name)
    if method.matches:
        steps, forgotten = options.redirect_steps, uno.training.settled(options.redirect_tolerance)
    else:
        steps, forgotten = options.steps, lambda row: row["guide_fraction"] < options.stop_below
    return resumable.unlearn_or_restore(
        folder,
        f"after-{method.name}",
        job.step,
        job.start(jax.random.key(options.seed)),
        lambda: job.streams(options.seed + 1),
        steps=steps,
        evaluate=look,
        forgotten=forgotten,
        devices=where,
    )


def main(options: Options) -> dict:
    """Runs the experiment and returns what metrics.json holds."""
    if not 0 <= options.forget <= 9:
        raise ValueError(f"forget: expected a digit from 0 to 9, got {options.forget}.")
    started = time.perf_counter()
    where = devices.choose(options.mesh, options.backend)
    out = options.out or Path("runs/mnist-demo")
    folder = common.RunFolder(out, options, ignore=("out", "mesh"))
    train, test = (data.load(options.data, part) for part in ("train", "test"))
    folder.data = checkpoints.fingerprint({"images": train.images, "labels": train.labels})
    split, test_split = (
        data.split_by_label(part, lambda label: label == options.forget) for part in (train, test)
    )
    common.console.print(f"{train.name}: digit {options.forget}, {split.describe()}")
    test_images = data.flatten(test)

    classifier = partial(
        training.classifier,
        folder,
        train,
        steps=options.judge_steps,
        learning_rate=2e-3,
        key=jax.random.fold_in(jax.random.key(options.seed), 1),
        seed=options.seed,
        devices=where,
    )
    judge, _ = classifier("judge", models.DigitCNN())
    judge2, _ = classifier("judge2", models.DigitDeepMLP())
    model = models.MnistVAE()
    if options.reference:
        guide = jax.jit(published.load_guide(options.reference / "mnist_classifier.npz")[0])
        original = published.load_vae(options.reference / "mnist_vae.npz")
    else:
        guide, _ = classifier("guide", models.DigitMLP())
        original = train_vae(options, folder, "before", model, train, where=where)
    retrained = train_vae(options, folder, "retrained", model, train, split.retain, where)
    subject = redirect.digits(model, original, train, split, data.flatten(train))

    latents = jax.random.normal(jax.random.key(options.seed + 2), (options.samples, 2))
    decode = jax.jit(lambda state, z: models.decode(model, state.params, state.model_state, z))

    def look(state):
        """A look at each step: 128 samples for the stop, at some steps 2,000 to judge."""
        guided = metrics.forgotten_fraction(guide, decode(state, latents[:128]), options.forget)
        row = {"guide_fraction": guided.value}
        if state.step <= 10 or state.step % 10 == 0:
            few = decode(state, latents[:2000])
            judged = metrics.forgotten_fraction(judge, few, options.forget)
            row |= {"forgotten_fraction": judged.value, "low": judged.low, "high": judged.high}
        return row

    @jax.jit
    def negative_elbo(state, images):
        key = jax.random.key(options.seed + 3)
        return jnp.mean(models.negative_elbo(model, state.params, state.model_state, images, key))

    rows, grids, histories = {}, {}, {}

    def record(name, state, steps, seconds):
        images = np.asarray(decode(state, latents))
        file = folder.path / "samples" / f"{name.replace(' ', '-')}.npz"
        np.savez_compressed(file, images=images.reshape(-1, 28, 28, 1))
        if name == f"after {options.method[0]}":
            shutil.copy(file, file.with_name("after.npz"))
        grids[name] = images[:100].reshape(-1, 28, 28)
        rows[name] = {
            "judge": metrics.forgotten_fraction(judge, images, options.forget)._asdict(),
            "judge2": metrics.forgotten_fraction(judge2, images, options.forget)._asdict(),
            "guide": metrics.forgotten_fraction(guide, images, options.forget)._asdict(),
            "negative_elbo": float(negative_elbo(state, test_images[test_split.retain])),
            "steps": steps,
            "seconds": seconds,
        }

    record("before", original, int(original.step) or None, None)
    start = look(original.replace(step=jnp.zeros((), jnp.int32)))
    for name in options.method:
        begin = time.perf_counter()
        method = uno.methods.get_method(name)
        result = unlearn(options, folder, method, subject, guide, look, where)
        histories[name] = [{"step": 0, **start}, *result.history]
        record(f"after {name}", result.state, len(result.history), time.perf_counter() - begin)
    record("retrained", retrained, options.train_steps, None)

    results = {
        "models": rows,
        "judge_accuracy": metrics.accuracy(judge, test_images, test.labels)._asdict(),
        "judge2_accuracy": metrics.accuracy(judge2, test_images, test.labels)._asdict(),
        "guide_accuracy": metrics.accuracy(guide, test_images, test.labels)._asdict(),
        "options": folder.config,
        "seconds": time.perf_counter() - started,
        **common.facts(),
    }
    folder.write_json("metrics", results)
    mnist_report.write_report(options, folder, results, grids, histories)
    return results


if __name__ == "__main__":
    common.run(main, Options)
