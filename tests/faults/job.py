"""The job that is struck: a small model is trained and made to forget, saved as it goes.

python -m tests.faults.job FOLDER [SPACE]

With SPACE, no file may grow beyond so many bytes, as on a full disk.
"""

import dataclasses
import json
import resource
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax

import uno_jax as uno
from experiments import common, resumable
from tests.transforms.problems import mlp_loss, mlp_params
from uno_jax import data
from uno_jax.checkpoints.series import checksums

SIZES = (32, 256, 32)
EXAMPLES = 96
DRAWN = "drawn"
"""A file with a mark for each batch that the process has drawn."""
PAUSE = 0.02
"""Seconds between steps, so that there is something to strike."""


@dataclasses.dataclass(frozen=True)
class Options:
    train: int = 60
    forget: int = 60
    save_every: int = 5


def loss_fn(params, batch, key):
    noise = 0.1 * jax.random.normal(key, batch["x"].shape)
    return mlp_loss(params, (batch["x"] + noise, batch["y"]))


def stream(seed):
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=(EXAMPLES, 32)).astype(np.float32) for name in "xy"}
    return data.array_batches(arrays, batch_size=16, seed=seed)


def paused(batches, drawn: Path):
    """The iterator with a pause and a mark at each batch; its position can be saved."""

    class Paused:
        def __iter__(self):
            return self

        def __next__(self):
            time.sleep(PAUSE)
            with drawn.open("a") as file:
                file.write(".")
            return next(batches)

        get_state, set_state = batches.get_state, batches.set_state

    return Paused()


def main(folder: Path) -> None:
    options = Options()
    run = common.RunFolder(folder, options)
    run.data = "noise"
    drawn = folder / DRAWN
    drawn.write_text("")
    tx = optax.adam(1e-2)
    state = resumable.train_or_restore(
        run,
        "training",
        uno.make_training_step(loss_fn, tx),
        uno.create_state(mlp_params(0, SIZES), tx, jax.random.key(0)),
        paused(stream(1), drawn),
        steps=options.train,
        save_every=options.save_every,
    )
    tx = optax.chain(uno.surgery(), optax.adam(1e-3))
    result = resumable.unlearn_or_restore(
        run,
        "forgetting",
        uno.make_unlearning_step(loss_fn, tx),
        uno.create_state(state.params, tx, jax.random.key(1)),
        lambda: (paused(stream(2), drawn), stream(3)),
        steps=options.forget,
        save_every=options.save_every,
    )
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]
    final = {"sums": checksums((state, result.state)), "history": rows}
    common.write_whole(folder / "final.json", json.dumps(final))


if __name__ == "__main__":
    common.use_compilation_cache()
    if len(sys.argv) > 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
    try:
        main(Path(sys.argv[1]))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
