"""Memory per device of a step on DiT-XL/2: on every device whole, or spread over them.

    python -m benchmarks.sharded_memory                    # 8 forced devices, nothing is run
    python -m benchmarks.sharded_memory --size B/2 --meshes data=8 fsdp=8 fsdp=4,model=2

What the compiler plans: arguments (parameters, Adam's moments, batches), which donation
lets the results take the place of, and temporaries, the most at any one time.
"""

import dataclasses
import os
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
# The partitioner warns of each array that it moves the long way.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
import jax.numpy as jnp
import optax
import tyro

import uno_jax as uno
from experiments import dit_models
from experiments.common import facts, print_table, write_whole
from uno_jax import diffusion, models, parallel

FAST_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@dataclasses.dataclass(frozen=True)
class Options:
    """Plan the memory of unlearning steps on a mesh."""

    size: str = "XL/2"
    """Size and patch of the DiT, on latents of 32x32x4."""
    batch: int = 16
    """Examples per batch of each kind, over all devices."""
    meshes: tuple[str, ...] = ("data=8", "fsdp=8")
    """Meshes of the devices there are."""
    methods: tuple[str, ...] = ("surgery", "uno")
    """Methods of the table."""
    out: Path | None = None
    """A Markdown file to write the table to."""


def plan(size: str, batch: int, mesh: str, method: str) -> dict[str, str]:
    """Compiles a step and returns a line of the table."""
    network = models.dit(size, dtype=jnp.bfloat16, remat=True, scan=True)
    process = dit_models.latent_process(network)
    tx = uno.methods.get_method(method).build(optax.adam(1e-4), weight=0.02)
    step = uno.make_unlearning_step(diffusion.make_diffusion_loss(process, label_dropout=0.1), tx)
    devices = parallel.make_mesh(parallel.parse_mesh(mesh))

    def abstract(tree, shardings):
        return jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            tree,
            shardings,
        )

    images = jax.ShapeDtypeStruct((batch, 32, 32, 4), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    times = jax.ShapeDtypeStruct((batch,), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), images, times, labels)
    state = jax.eval_shape(
        lambda p: uno.create_state(models.stack_blocks(p), tx, jax.random.key(0)),
        variables["params"],
    )
    shardings = parallel.state_shardings(devices, state, parallel.DIT_RULES)
    everywhere = parallel.batch_sharding(devices)
    data = {"image": images, "label": labels}
    data = abstract(data, {name: everywhere for name in data})
    compiled = (
        parallel.jit_step(step, shardings).lower(abstract(state, shardings), data, data)
    ).compile(FAST_COMPILE)
    memory = compiled.memory_analysis()
    gib = 2.0**30
    return {
        "mesh": mesh,
        "method": method,
        "arguments, GiB": f"{memory.argument_size_in_bytes / gib:.2f}",
        "temporaries, GiB": f"{memory.temp_size_in_bytes / gib:.2f}",
        "both, GiB": f"{(memory.argument_size_in_bytes + memory.temp_size_in_bytes) / gib:.2f}",
    }


def main(options: Options) -> list[dict[str, str]]:
    """Prints, writes if asked to, and returns a line per mesh and method."""
    lines = [
        plan(options.size, options.batch, mesh, method)
        for mesh in options.meshes
        for method in options.methods
    ]
    print_table(lines)
    if options.out:
        rows = [list(lines[0]), ["---"] * len(lines[0]), *(list(line.values()) for line in lines)]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        said = facts()
        write_whole(
            options.out,
            f"DiT-{options.size}, bfloat16, remat and scan over stacked blocks, batches of "
            f"{options.batch}, per device of {len(jax.devices())}: `{said['command']}`, "
            f"{said['versions']}, {said['device']}.\n\n{table}\n",
        )
    return lines


if __name__ == "__main__":
    main(tyro.cli(Options))
