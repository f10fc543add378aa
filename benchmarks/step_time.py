"""Step times of every gradient method on the MNIST VAE.

    python -m benchmarks.step_time --batch 128

Rounds are interleaved between the methods, so that drift of the machine hits all
alike; every step is blocked on; compilation is not counted.
"""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import uno_jax as uno
from experiments.common import facts, print_table
from uno_jax import models


@dataclasses.dataclass(frozen=True)
class Options:
    """Time the unlearning step of every gradient method on the MNIST VAE."""

    batch: tuple[int, ...] = (128,)
    """Batch sizes."""
    rounds: int = 60
    """Timed steps of each method and batch size."""


def compile_steps(batch: int) -> dict:
    """Returns, per method, the compiled step and its arguments."""
    model = models.MnistVAE()
    variables = model.init(jax.random.key(0), jnp.zeros((2, 784)), jnp.zeros((2, 2)), train=True)
    images = np.random.default_rng(0).uniform(size=(2, batch, 784)).astype(np.float32)
    retain, forget = ({"image": jnp.asarray(part)} for part in images)
    ones = jax.tree.map(jnp.ones_like, variables["params"])
    compiled = {}
    for method in map(uno.methods.get_method, uno.methods.UNCONDITIONAL):
        if method.matches:
            continue
        tx = method.build(optax.adam(1e-3), second_moment=ones)
        state = uno.create_state(
            variables["params"], tx, jax.random.key(0), model_state=variables["batch_stats"]
        )
        step = uno.make_unlearning_step(
            models.make_vae_loss(model), tx, has_model_state=True, descend=method.descend
        )
        arguments = (state, retain, forget)
        compiled[method.name] = jax.jit(step).lower(*arguments).compile(), arguments
    return compiled


def measure(compiled: dict, rounds: int) -> dict[str, np.ndarray]:
    """Times every step `rounds` times, interleaved; milliseconds."""
    times: dict[str, list] = {name: [] for name in compiled}
    for round_number in range(rounds + 3):
        for name, (step, arguments) in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(step(*arguments))
            if round_number >= 3:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: np.array(values) for name, values in times.items()}


def summarise(times: dict[str, np.ndarray], **facts: str) -> list[dict[str, str]]:
    """Returns a row per method, with the same facts in each."""
    base = np.median(times["surgery"])
    rows = []
    for name, values in times.items():
        low, median, high = np.percentile(values, (10, 50, 90))
        rows.append(
            {
                "method": name,
                **facts,
                "median ms": f"{median:.2f}",
                "10-90 %": f"{low:.2f} - {high:.2f}",
                "of a surgery step": f"{median / base:.2f}",
            }
        )
    return rows


def main(options: Options) -> list[dict[str, str]]:
    """Prints the table and returns its rows."""
    rows = []
    for batch in options.batch:
        times = measure(compile_steps(batch), options.rounds)
        rows += summarise(times, batch=str(batch))
    print_table(rows)
    print(facts()["device"], facts()["versions"], sep="\n")
    return rows


if __name__ == "__main__":
    main(tyro.cli(Options))
