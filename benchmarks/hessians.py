"""UNO's ways to take Hessian-vector products: what each costs and how far off it is.

    python -m benchmarks.hessians --output benchmarks/results
    python -m benchmarks.hessians --models dit_small --batch 64 --remat

The cost is in surgery steps, rounds interleaved. The error is that of the penalty's gradient,
relative to the exact one at the same batches and noise, and the cosine between the two;
"1/k of the batch" takes gradients and products on so many examples and with noise of its own,
"other noise" is the exact penalty of the same images.
"""

import dataclasses
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import uno_jax as uno
from benchmarks import output, problems, timing
from experiments import common
from uno_jax import trees


@dataclasses.dataclass(frozen=True)
class Options:
    """Time and compare UNO's ways to take Hessian-vector products."""

    models: str = "mnist_vae,celeba_vae,unet,dit_s"
    """Of mnist_vae, celeba_vae, unet, dit_small and dit_s, with commas."""
    batch: int = 32
    """Examples of each kind."""
    train_steps: int = 30
    """Steps of Adam at 1e-3 on the retain batch before: at its initial parameters a model is
    like no other."""
    rounds: int = 20
    """Timed steps of each, at most."""
    seconds: float = 20.0
    """After so many, no further round of a model is begun."""
    remat: bool = False
    """Whether the blocks of denoisers are computed again in the backward pass."""
    output: Path | None = None
    """A folder for hessians.json and .md."""


EVERY = 16
LAZY = f", every {EVERY}th step"
WAYS = ("exact", "finite-difference", f"exact{LAZY}", f"finite-difference{LAZY}")


def trained(problem: problems.Problem, batch: int, steps: int) -> problems.Problem:
    """The model after some steps of training."""
    tx = optax.adam(1e-3)
    step = uno.make_training_step(problem.loss_fn, tx, has_model_state=problem.has_model_state)
    state = uno.create_state(problem.params, tx, jax.random.key(1), model_state=problem.model_state)
    retain = itertools.repeat(problem.batches(batch)[0])
    state = uno.train(jax.jit(step), state, retain, max_steps=steps).state
    return problem._replace(params=state.params, model_state=state.model_state)


def penalty(problem: problems.Problem, hessian: str):
    """`penalty(params, retain, forget, key)`, the gradient of cos²."""

    def of(params, retain, forget, key):
        functions = [
            jax.grad(lambda p, b=batch, k=key: problem.value(p, b, k))
            for batch, key in zip((retain, forget), jax.random.split(key), strict=True)
        ]
        tx = uno.orthogonalize(problem.weight, hessian=hessian)
        grads = functions[0](params)
        updates, _ = tx.update(
            grads, tx.init(params), params, retain_grad_fn=functions[0], forget_grad_fn=functions[1]
        )
        return jax.tree.map(jnp.subtract, updates, grads)

    return jax.jit(of)


def apart(a, b) -> tuple[float, float]:
    """Relative error of `a` and its cosine with `b`."""
    difference = trees.direction(trees.add_scaled(a, -1.0, b)).norm
    unit, norm = trees.direction(b)
    return float(difference / norm), float(trees.dot(trees.direction(a).unit, unit))


def errors(problem: problems.Problem, batch: int) -> dict[str, tuple[float, float]]:
    """Relative error and cosine of each way on one model."""
    retain, forget = problem.batches(batch)
    key = jax.random.key(3)
    exact = penalty(problem, "exact")
    reference = exact(problem.params, retain, forget, key)
    found = {
        "finite-difference": penalty(problem, "finite-difference")(
            problem.params, retain, forget, key
        ),
        "other noise": exact(problem.params, retain, forget, jax.random.key(4)),
    }
    for part in (2, 4, 8):
        some = jax.tree.map(lambda x, part=part: x[: batch // part], (retain, forget))
        found[f"1/{part} of the batch"] = exact(problem.params, *some, key)
    return {"exact": (0.0, 1.0)} | {way: apart(got, reference) for way, got in found.items()}


def direction_of(way: str, weight: float):
    """The transformation of a way, or surgery, to compare with."""
    if way == "surgery":
        return uno.surgery()
    lazily, hessian = way.endswith(LAZY), way.removesuffix(LAZY)
    if not lazily:
        return uno.orthogonalize(weight, hessian=hessian)
    others = (EVERY - 1) * [optax.identity()]
    return uno.alternate(uno.orthogonalize(EVERY * weight, hessian=hessian), *others)


def costs(problem: problems.Problem, options: Options) -> dict[str, dict]:
    """Milliseconds, surgery steps and temporaries of each way on one model."""
    batches = problem.batches(options.batch)
    programs = {}
    for way in ("surgery", *WAYS):
        direction = direction_of(way, problem.weight)
        step, state = problems.with_transformation(
            problem, optax.chain(direction, optax.adam(1e-4))
        )
        programs[way] = timing.compile_program(step, state, *batches)
        if way.endswith(LAZY):
            # The step with the penalty is timed, and one of those without.
            state, _ = jax.jit(step)(state, *batches)
            programs[f"{way}, between"] = timing.compile_program(step, state, *batches)
    times = timing.interleaved(
        {way: program.run for way, program in programs.items()},
        rounds=options.rounds,
        seconds=options.seconds,
    )
    found = {}
    for way, program in programs.items():
        if way.endswith(", between"):
            continue
        own, between = times[way], times.get(f"{way}, between")
        if between is not None:
            own = (own + (EVERY - 1) * between) / EVERY
        found[way] = {
            **timing.spread(own),
            "of_surgery": float(np.median(own / times["surgery"])),
            "temporary_mib": program.temporary_bytes / 2**20,
        }
    return found


def main(options: Options) -> list[dict]:
    """Prints the table and returns its lines."""
    lines: list[dict] = []
    for name in options.models.split(","):
        problem = problems.get_problem(name, remat=options.remat)
        problem = trained(problem, options.batch, options.train_steps)
        found, off = costs(problem, options), errors(problem, options.batch)
        for way in [*found, *(way for way in off if way not in found)]:
            line = {"model": name, "batch": options.batch, "hessian": way, **found.get(way, {})}
            if way in off:
                line["error"], line["cosine"] = off[way]
            lines.append(line)
        common.console.print(f"{name}: done")
    rows = [
        {
            "model": line["model"],
            "products": line["hessian"],
            "ms": f"{line['median_ms']:.4g}" if "median_ms" in line else "",
            "surgery steps": f"{line['of_surgery']:.2f}" if "of_surgery" in line else "",
            "temporaries, MiB": f"{line['temporary_mib']:.0f}" if "temporary_mib" in line else "",
            "error": f"{line['error']:.2g}" if "error" in line else "",
            "cosine": f"{line['cosine']:.4f}" if "cosine" in line else "",
        }
        for line in lines
    ]
    common.print_table(rows)
    if options.output:
        output.save(options.output, "hessians", lines, rows, facts=output.about())
    return lines


if __name__ == "__main__":
    main(tyro.cli(Options))
