"""Steps of the MNIST VAE under pytest-benchmark.

python -m pytest benchmarks --benchmark-enable
"""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import problems, timing


@pytest.mark.parametrize("method", ["retain-descent", "surgery", "uno"])
def test_step(benchmark, method):
    problem = problems.get_problem("mnist_vae")
    step, state = problems.make_step(problem, method)
    program = timing.compile_program(step, state, *problem.batches(32))
    state, metrics = benchmark(program.run)
    assert int(state.step) == 1 and all(map(jnp.isfinite, metrics.values()))
    assert jax.tree.structure(state.params) == jax.tree.structure(problem.params)
