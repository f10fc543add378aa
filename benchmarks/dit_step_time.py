"""Step times and memory of UNO and surgery on a diffusion transformer.

    python -m benchmarks.dit_step_time                                  # the experiment's DiT
    python -m benchmarks.dit_step_time --size B/2 XL/2 --batch 10 32 --dtype bfloat16

Rounds are interleaved between the methods; every step is blocked on; compilation is not
counted. Memory is the compiler's plan of temporaries, beside parameters and optimizer.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import uno_jax as uno
from benchmarks.step_time import measure, summarise
from experiments import dit_models
from experiments.common import facts, print_table
from uno_jax import diffusion, models

METHODS = ("uno", "uno-s", "surgery", "retain-descent")


@dataclasses.dataclass(frozen=True)
class Options:
    """Time the unlearning steps of diffusion transformers."""

    size: tuple[str, ...] = ("small",)
    """small: the experiment's, on digits; S/2 to XL/8: published, on latents of 32x32x4."""
    batch: tuple[int, ...] = (64,)
    """Batch sizes, of each kind."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation."""
    remat: bool = True
    """Whether the blocks are computed again in the backward pass, in one scan."""
    rounds: int = 10
    """Timed steps of each method."""


def compile_steps(size: str, batch: int, options: Options) -> dict:
    """Returns, per method, the compiled step and its arguments."""
    chosen = {"dtype": jnp.dtype(options.dtype), "remat": options.remat, "scan": options.remat}
    if size == "small":
        network, shape = dit_models.network("dit").clone(**chosen), dit_models.SHAPE
        process = dit_models.process(network)
    else:
        network, shape = models.dit(size, **chosen), (32, 32, 4)
        process = dit_models.latent_process(network)
    images = jnp.zeros((2, *shape)), jnp.zeros(2), jnp.zeros(2, jnp.int32)
    params = jax.jit(network.init)(jax.random.key(0), *images)["params"]
    loss_fn = diffusion.make_diffusion_loss(process, label_dropout=0.1)
    rng = np.random.default_rng(0)
    retain, forget = (
        {
            "image": jnp.asarray(rng.normal(size=(batch, *shape)), jnp.float32),
            "label": jnp.asarray(rng.integers(0, network.classes, batch), jnp.int32),
        }
        for _ in range(2)
    )
    compiled = {}
    for name in METHODS:
        method = uno.methods.get_method(name)
        tx = method.build(optax.adam(1e-4), weight=0.02)
        state = uno.create_state(params, tx, jax.random.key(0))
        step = uno.make_unlearning_step(loss_fn, tx, descend=method.descend)
        arguments = (state, retain, forget)
        compiled[name] = jax.jit(step).lower(*arguments).compile(), arguments
    return compiled


def main(options: Options) -> list[dict]:
    """Prints, and returns, a line per size, batch size and method."""
    lines = []
    for size in options.size:
        for batch in options.batch:
            compiled = compile_steps(size, batch, options)
            times = measure(compiled, options.rounds)
            memory = {
                name: step.memory_analysis().temp_size_in_bytes
                for name, (step, _) in compiled.items()
            }
            for line in summarise(times, size=size, batch=str(batch)):
                own = memory[line["method"]]
                line["memory, MiB"] = f"{own / 2**20:.0f}"
                line["memory, of a surgery step"] = f"{own / memory['surgery']:.2f}"
                lines.append(line)
    print_table(lines)
    print(facts()["device"], facts()["versions"], sep="\n")
    return lines


if __name__ == "__main__":
    main(tyro.cli(Options))
