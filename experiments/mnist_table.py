"""The table that tells the truth: every method from the published MNIST weights.

    TFDS_DATA_DIR=... python -m experiments.mnist_table --reference DIR
    TFDS_DATA_DIR=... python -m experiments.mnist_table --reference DIR --protocol authors

DIR holds `mnist_vae.npz` and `mnist_classifier.npz`, the published weights, and for the authors'
protocol `mnist_summary.csv`, the published figures. Each row of the table is run for several
seeds and kept in a file of its own: the same command goes on with what is missing. Rows run in
two processes, pinned to a core each, which is faster here than vectorising over seeds (10 UNO
steps, measured with the other core busy: 289 ms one by one, 378 ms under vmap, 383 ms under
lax.map).
"""

import dataclasses
import itertools
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script runs from any folder

import uno_jax as uno
from experiments import common, mnist_authors, mnist_table_report, redirect, training
from experiments.mnist_lab import Lab
from experiments.vae_methods import Model, Protocol, prepare
from uno_jax import data


@dataclasses.dataclass(frozen=True)
class Options:
    """Run every method from the published MNIST weights and write the table."""

    reference: Path
    """Folder with mnist_vae.npz, mnist_classifier.npz and mnist_summary.csv."""
    out: Path | None = None
    """The run's folder, the same folder continues; runs/mnist-table, or runs/mnist-authors."""
    protocol: Literal["ours", "authors"] = "ours"
    """ours: counted in evaluation mode after the update, all methods, the redirect and the
    retrained model; authors: as the published figures were made, see mnist_authors."""
    data: Literal["mnist5k", "mnist"] = "mnist"
    """mnist: TFDS, in TFDS_DATA_DIR; mnist5k: 5,000 digits that come with the package."""
    forget: int = 1
    """The digit to forget in the main table."""
    rows: tuple[str, ...] = ()
    """Rows to run; all by default."""
    seeds: int = 10
    """Seeds of each row of the main table."""
    most_seeds: int = 0
    """With --protocol authors: most seeds of a row; 0 for 10, and 30 of UNO and its control."""
    first_seed: int = 100
    """The first; the default method was chosen on seeds 0 to 9."""
    warm_seeds: int = 3
    """Seeds of the rows with frozen batch norm and a warm Adam."""
    digits: tuple[int, ...] = tuple(range(10))
    """Digits of the second table, the default method on each."""
    digit_seeds: int = 3
    """Seeds of each digit."""
    max_steps: int = 659
    """Steps after which a method gives up; with --protocol authors 530, as they made."""
    warm_steps: int = 100
    """The same for the protocol with frozen batch norm and a warm Adam."""
    marks: tuple[int, ...] = (1, 3, 5, 10, 20, 50)
    """Steps after which the judge looks."""
    redirect_steps: int = 10
    """Steps of the redirects, whatever anyone says of them."""
    rebound: tuple[int, ...] = (20, 100)
    """Further retain-descent steps after which the judge looks again."""
    retrain_steps: tuple[int, ...] = (421, 842, 2105, 4210, 8420)
    """Steps of retraining from scratch after which to look; the last ends it."""
    judge_steps: int = 4000
    """Training steps of each judge."""
    samples: int = 10_000
    """Generated samples that the fractions are counted on."""
    workers: int = 2
    """Processes, each on a core of its own; 0 for none beside this one."""


class Row(NamedTuple):
    """A row of the table.

    Attributes:
      name: also of its file.
      method: of `uno.methods.METHODS`, or `"retrain"`.
      protocol: how it is run.
      digit: the digit to forget; None for that of the options.
    """

    name: str
    method: str
    protocol: Protocol = Protocol()
    digit: int | None = None


HAT = 1e3
HATS = ("retain-descent", "surgery", "uno", "uno-s")
OURS = Protocol(norm="running", warm=True)


def all_rows(options: Options) -> list[Row]:
    """The rows, longest first, so that two processes end together."""
    rows_of_methods = map(uno.methods.get_method, uno.methods.UNCONDITIONAL)
    gradient = [m for m in rows_of_methods if not m.matches]
    rows = [Row("retrained", "retrain")]
    rows += [Row(name, name) for name in ("redirect", "redirect-diagonal")]
    rows += [Row(f"digit-{digit}", "redirect", digit=digit) for digit in options.digits]
    rows += [Row(m.name, m.name) for m in gradient]
    rows += [Row(f"{name} + hat", name, Protocol(hat=HAT)) for name in HATS]
    rows += [
        Row(f"{m.name}, frozen, warm", m.name, OURS) for m in gradient if m.name != "recalibration"
    ]
    return _chosen(rows, options)


def _chosen(rows: Sequence, options: Options) -> list:
    """The rows that the options name; all if they name none."""
    if not options.rows:
        return list(rows)
    unknown = set(options.rows) - {row.name for row in rows}
    if unknown:
        raise ValueError(
            f"rows: expected some of {[row.name for row in rows]}, got {sorted(unknown)}."
        )
    return [row for row in rows if row.name in options.rows]


_lab: Lab | None = None


def run_named(options: Options, folder: common.RunFolder, name: str) -> str:
    """Runs all seeds of a row, by its name, and writes its file."""
    global _lab
    if _lab is None:
        _lab = Lab(options, folder)
    if options.protocol == "authors":
        row = next(row for row in mnist_authors.ROWS if row.name == name)
        seeds = min(row.seeds, options.most_seeds or row.seeds)
        most = min(options.max_steps, mnist_authors.MAX_STEPS)
        result = mnist_authors.run_row(
            _lab, row, options.forget, options.first_seed, most=most, seeds=seeds
        )
    else:
        row = next(row for row in all_rows(options) if row.name == name)
        result = run_row(_lab, options, folder, row)
    file = _file(folder, row)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.rename(file)
    return name


def run_row(lab: Lab, options: Options, folder: common.RunFolder, row: Row) -> dict:
    """Runs all seeds of a row."""
    begin = time.perf_counter()
    digit = options.forget if row.digit is None else row.digit
    model = lab.model(digit)
    count = options.warm_seeds if row.protocol.warm else options.seeds
    count = count if row.digit is None else options.digit_seeds
    seeds = range(options.first_seed, options.first_seed + count)
    if row.method == "retrain":
        runs = [_retrain(lab, model, digit, seed, options.retrain_steps) for seed in seeds[:2]]
        per_step = row.protocol.batch_size
    else:
        method = uno.methods.get_method(row.method)
        job = prepare(method, row.protocol, model, lab.guide, digit)
        most = options.warm_steps if row.protocol.warm else options.max_steps
        runs = _runs(lab, method, job, digit, seeds, most)
        per_step = evaluations(method, row.protocol.batch_size)
    _save_samples(lab, folder, row.name, runs[0]["state"], seeds[0])
    for run in runs:
        del run["state"]
    result = {
        "name": row.name,
        "method": row.method,
        "digit": digit,
        **dataclasses.asdict(row.protocol),
        "evaluations_per_step": per_step,
        "training_images": len(lab.images),
        "before": [lab.before(digit, seed) for seed in seeds],
        "runs": runs,
    }
    if row.digit is not None:
        method = uno.methods.get_method("retain-descent")
        control = prepare(method, Protocol(), model)
        result["control"] = _runs(lab, method, control, digit, seeds[:1], None)
        retrained = _retrain(lab, model, digit, seeds[0], options.retrain_steps[2:3])
        for extra in (*result["control"], retrained):
            del extra["state"]
        result["retrained"] = retrained
    result["minutes"] = (time.perf_counter() - begin) / 60
    return result


def _save_samples(lab, folder, name, state, seed) -> None:
    """Keeps pictures: all of the original, the default and the yardstick, else 100."""
    name = {"redirect": "after"}.get(name, name)
    count = None if name in ("before", "after", "retrained") else 100
    images = np.asarray(lab.decode(state, lab.latents(seed)[:count]))
    file = folder.path / "samples" / f"{name}.npz"
    np.savez_compressed(file, images=images.reshape(-1, 28, 28, 1))


def evaluations(method: uno.methods.Method, batch_size: int) -> float:
    """Gradients of single images per step; a Hessian-vector product counts as two.

    A Gauss-Newton product, forward and transposed once, counts as one. Evaluations of
    the loss alone, as in a line search, are not counted.
    """
    if method.matches:
        return (1 + method.products) * (redirect.RETAIN_SIZE + redirect.FORGET_SIZE) / 2
    return batch_size * (method.gradients + 2 * method.products)


def _runs(lab, method, job, digit, seeds, most):
    """Runs seeds; without a `most` for as many steps as the redirect makes."""
    options = lab.options
    short = method.matches or most is None
    step = jax.jit(job.step)
    return [
        lab.run(
            job,
            step,
            digit,
            seed,
            steps=options.redirect_steps if short else most,
            marks=[m for m in options.marks if not short or m <= options.redirect_steps],
            stop="last" if short else "guide",
        )
        for seed in seeds
    ]


def _retrain(lab: Lab, model: Model, digit: int, seed: int, marks) -> dict:
    """Trains from scratch without the digit, as the original was trained."""
    step, state = training.fresh_vae(model.vae, seed, 1e-3)
    step = jax.jit(step)
    batches = data.batches(lab.train, model.split.retain, batch_size=128, seed=seed)
    at_marks = {}
    for number, batch in enumerate(itertools.islice(batches, marks[-1]), start=1):
        state, _ = step(state, batch)
        if number in marks:
            at_marks[number] = lab.look(state, digit, seed)
    return {
        "seed": seed,
        "reached": True,
        "stop_step": marks[-1],
        "marks": at_marks,
        "stop": lab.look(state, digit, seed, thorough=True),
        **lab.rebound(state, digit, seed, steps=lab.options.rebound),
        "state": state,
    }


def _begin(options: Options, folder: common.RunFolder) -> None:
    """Trains the judges, before two processes would, and keeps the original's samples."""
    lab = Lab(options, folder)
    folder.write_json("accuracies", lab.accuracies)
    _save_samples(lab, folder, "before", lab.original, options.first_seed)


def _file(folder: common.RunFolder, row: Row | mnist_authors.Row) -> Path:
    return folder.path / "rows" / f"{row.name}.json"


def _pin(counter) -> None:
    """Gives a worker a core of its own before it starts JAX."""
    with counter.get_lock():
        number, counter.value = counter.value, counter.value + 1
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[number % len(cores)]})
    common.use_compilation_cache()


def main(options: Options) -> list[dict]:
    """Runs what is missing, writes the table, and returns its rows."""
    authors = options.protocol == "authors"
    out = options.out or Path("runs/mnist-authors" if authors else "runs/mnist-table")
    folder = common.RunFolder(out, options, ignore=("out", "workers", "rows", "reference"))
    (folder.path / "rows").mkdir(exist_ok=True)
    rows = _chosen(mnist_authors.ROWS, options) if authors else all_rows(options)
    missing = [row for row in rows if not _file(folder, row).exists()]
    accuracies = folder.path / "accuracies.json"
    if missing or not accuracies.exists():
        _begin(options, folder)
    with common.Bar("rows", len(missing)) as bar:
        names = [row.name for row in missing]
        if options.workers:
            context = multiprocessing.get_context("spawn")
            counter = context.Value("i", 0)
            with ProcessPoolExecutor(options.workers, context, _pin, (counter,)) as pool:
                jobs = [pool.submit(run_named, options, folder, name) for name in names]
                for number, job in enumerate(as_completed(jobs), start=1):
                    common.console.print(job.result())
                    bar({"step": number})
        else:
            for number, name in enumerate(names, start=1):
                common.console.print(run_named(options, folder, name))
                bar({"step": number})
    results = [json.loads(_file(folder, row).read_text()) for row in rows]
    write = mnist_authors.write if authors else mnist_table_report.write
    return write(options, folder, results, json.loads(accuracies.read_text()))


if __name__ == "__main__":
    common.run(main, Options)
