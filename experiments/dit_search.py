"""At which learning rates a method forgets a label and keeps the others, by the guide alone.

    python -m experiments.dit_search --run runs/dit-dit --method surgery --rates 1e-3 2e-3
    python -m experiments.dit_search --method surgery --trainable '' --rates 5e-5 1e-4 2e-4

Takes the trained model and the guide of a run of `experiments.dit`; the judges that say of its
models what they forgot are not asked. All rates are one program, the method's steps in a loop
mapped over the rate, from the same state through the same batches and noise: on a GPU a dozen
rates take the time of one.
"""

import dataclasses
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script runs from any folder

from experiments import common, dit, dit_lab, dit_methods, dit_settings
from uno_jax import metrics


@dataclasses.dataclass(frozen=True)
class Options:
    """Try learning rates of methods on a trained conditional model."""

    run: Path = Path("runs/dit-dit")
    """Folder of a run of experiments.dit, whose options count but for what is given here."""
    method: tuple[dit.MethodName, ...] = ("surgery",)
    """Methods, one after the other."""
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    """Highest learning rates of Adam."""
    trainable: str | None = None
    """Parameters that move, as of experiments.dit."""
    samples: int = 60
    """Guided samples per label."""


def search(
    options: dit.Options, lab: dit_lab.Lab, name: str, original: Any, rates: tuple[float, ...]
) -> list[Any]:
    """Returns the parameters that a method ends with, for each rate."""
    method, how = dit_settings.protocol(options, name)
    model = lab.model(original, how.replay)
    job = dit_methods.prepare(method, how, model)
    sides = (itertools.islice(side, options.steps) for side in job.streams(options.seed + 1))
    batches = jax.tree.map(lambda *rows: jnp.stack(rows), *zip(*sides, strict=True))
    start = job.start(jax.random.key(options.seed))

    def last(rate, batches):
        of_rate = dit_methods.prepare(method, dataclasses.replace(how, learning_rate=rate), model)
        step = lambda state, pair: (of_rate.step(state, *pair)[0], None)  # noqa: E731
        return jax.lax.scan(step, start, batches)[0].params

    found = jax.jit(jax.vmap(last, (0, None)))(jnp.asarray(rates), batches)
    moved = (jax.tree.map(lambda leaf, i=i: leaf[i], found) for i in range(len(rates)))
    return [dit_methods.whole(start.replace(params=params)) for params in moved]


def look(options: Options, lab: dit_lab.Lab, forget: int, params: Any) -> dict[str, str]:
    """What the guide takes guided samples for."""
    labels = np.repeat(np.arange(10, dtype=np.int32), options.samples)
    images = lab.samples(params, labels, "guided", seed=5)
    kept = labels != forget
    left = metrics.forgotten_fraction(lab.guide, images[~kept], forget)
    right = metrics.accuracy(lab.guide, images[kept], labels[kept])
    return {
        "label %": f"{100 * left.value:.1f}",
        "other nine %": f"{100 * right.value:.1f}",
    }


def main(options: Options) -> list[dict[str, str]]:
    """Prints the table and returns its rows."""
    known = json.loads((options.run / "config.json").read_text())
    known = {key: tuple(v) if isinstance(v, list) else v for key, v in known.items()}
    of_run = dit.Options(**known, out=options.run)
    folder = common.RunFolder(options.run, of_run, ignore=dit.IGNORED)
    lab = dit_lab.Lab(of_run, folder)
    original = dit.train(of_run, lab, folder, "before")
    tried = dataclasses.replace(of_run, trainable=options.trainable)
    found = look(options, lab, of_run.forget, original)
    rows = [{"method": "before", "rate": "", **found}]
    for name in options.method:
        ended = search(tried, lab, name, original, options.rates)
        for rate, params in zip(options.rates, ended, strict=True):
            found = look(options, lab, of_run.forget, params)
            rows.append({"method": name, "rate": f"{rate:g}", **found})
    common.print_table(rows)
    return rows


if __name__ == "__main__":
    common.run(main, Options)
