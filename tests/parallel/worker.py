"""A few steps of UNO and surgery on all devices of all processes, saved by the first.

python -m tests.parallel.worker FOLDER, in several processes of the launcher.
"""

import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax

import uno_jax as uno
from tests.transforms.problems import mlp_loss, mlp_params
from uno_jax import checkpoints, data, parallel

SIZES = (6, 32, 6)
STEPS = 4
BATCH = 8
MANIFEST = checkpoints.make_manifest({"steps": STEPS}, "noise")


def loss_fn(params, batch, key):
    del key
    return mlp_loss(params, (batch["x"], batch["y"]))


def stream(seed):
    """This process's part of the batches."""
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=(40, 6)).astype(np.float32) for name in "xy"}
    size = BATCH // jax.process_count()
    return data.array_batches(arrays, batch_size=size, seed=seed, **parallel.shard_of_process())


def start(mesh):
    tx = optax.chain(
        uno.alternate(uno.orthogonalize(10.0), uno.surgery()), optax.scale_by_learning_rate(0.1)
    )
    state = uno.create_state(mlp_params(0, SIZES), tx, jax.random.key(0))
    return uno.make_unlearning_step(loss_fn, tx), parallel.shard_state(mesh, state, smallest=64)


def run(mesh):
    """The state after some steps on a mesh, and the cosines on the way."""
    step, state = start(mesh)
    step = parallel.jit_step(step, jax.tree.map(lambda leaf: leaf.sharding, state))
    cosines = []
    for retain, forget, _ in zip(stream(1), stream(2), range(STEPS), strict=False):
        state, metrics = step(state, *parallel.shard_batch(mesh, (retain, forget)))
        cosines.append(float(metrics["cosine"]))
    return state, cosines


def main(folder: Path) -> None:
    parallel.join_processes()
    mesh = parallel.make_mesh({"data": len(jax.devices()) // 2, "fsdp": 2})
    state, cosines = run(mesh)
    with checkpoints.Series(folder / "series", MANIFEST) as series:
        series.save(state, {"cosines": cosines})
    again = series_of(folder, start(mesh)[1])
    leaves = jax.tree.leaves(parallel.gather(again.state.params))
    if parallel.is_first():
        np.savez(folder / "params.npz", *map(np.asarray, leaves))
    print(f"process {jax.process_index()} of {jax.process_count()}")


def wait_until_asked(folder: Path) -> None:
    parallel.join_processes()
    with checkpoints.Preemption() as preemption:
        for step in range(1, 2000):
            time.sleep(0.05)
            (folder / f"waiting-{jax.process_index()}").touch()
            if preemption.asked(step):
                (folder / f"asked-{jax.process_index()}").write_text(str(step))
                sys.exit(0)


def series_of(folder: Path, like):
    """What the folder holds, on the devices of `like`."""
    with checkpoints.Series(folder / "series", MANIFEST) as series:
        return series.restore(like)


if __name__ == "__main__":
    (wait_until_asked if "--wait" in sys.argv else main)(Path(sys.argv[1]))
