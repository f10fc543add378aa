"""The same from a program exported before: without tracing, Flax and Optax.

python -m benchmarks.jobs.exported_job weights.npz data.npz forgotten.npz program
"""

import sys
from pathlib import Path

import jax
import numpy as np
from jax import export

from uno_jax import foreign


def main(weights: Path, data: Path, out: Path, program: Path) -> None:
    variables = foreign.from_torch(foreign.read_arrays(weights), foreign.MNIST_VAE)
    run = jax.jit(export.deserialize(bytearray(program.read_bytes())).call)
    with np.load(data) as arrays:
        variables, cosines = run(variables, arrays["retain"], arrays["forget"], 0)
    np.savez(out, **foreign.to_torch(variables, foreign.MNIST_VAE))
    print("cosines", np.asarray(cosines))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]))
