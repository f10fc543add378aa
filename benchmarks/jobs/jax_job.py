"""Three steps of UNO on the MNIST VAE with uno_jax.

    python -m benchmarks.jobs.jax_job weights.npz data.npz forgotten.npz [--export]

Initialisation and steps are one program, so that one thing is compiled, or taken from the
cache that JAX_COMPILATION_CACHE_DIR names. `--export` writes that program
to the last file, for `benchmarks.jobs.exported_job`, instead of running it.
"""

import sys
from pathlib import Path

import jax
import numpy as np
import optax

import uno_jax as uno
from uno_jax import foreign, models

STEPS, BATCH, WEIGHT, LEARNING_RATE = 3, 128, 1e3, 1e-4


def forget(variables, retain, forget, seed):
    """Variables after a scan over (STEPS, BATCH, 784) images of each kind."""
    tx = optax.chain(uno.orthogonalize(WEIGHT), optax.adam(LEARNING_RATE))
    state = uno.create_state(
        variables["params"], tx, jax.random.key(seed), model_state=variables["batch_stats"]
    )
    loss_fn = models.make_vae_loss(models.MnistVAE())
    step = uno.make_unlearning_step(loss_fn, tx, has_model_state=True)
    batches = {"image": retain}, {"image": forget}
    state, metrics = jax.lax.scan(lambda state, pair: step(state, *pair), state, batches)
    return {"params": state.params, "batch_stats": state.model_state}, metrics["cosine"]


def main(weights: Path, data: Path, out: Path) -> None:
    variables = foreign.from_torch(foreign.read_arrays(weights), foreign.MNIST_VAE)
    with np.load(data) as arrays:
        arguments = variables, arrays["retain"], arrays["forget"], 0
    if "--export" in sys.argv:
        exported = jax.export.export(jax.jit(forget))(*arguments)
        out.write_bytes(exported.serialize())
        return
    variables, cosines = jax.jit(forget)(*arguments)
    np.savez(out, **foreign.to_torch(variables, foreign.MNIST_VAE))
    print("cosines", np.asarray(cosines))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
