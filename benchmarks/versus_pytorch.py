"""Step times beside PyTorch, of the same models, alternating in one process.

    pip install '.[bench]'
    python -m benchmarks.versus_pytorch --output benchmarks/results

Each twin gets our weights, and both must agree on the loss and its gradient before anything
is timed. Rounds alternate between the libraries and all methods, so that drift of the machine
hits all alike; every step is blocked on; compilation is not counted. Ours makes the
unlearning step with its metrics, PyTorch what the method needs: eager, and with its loss
under `torch.compile`, which refuses second derivatives and so has no UNO. On a GPU both sides
take products of float32 in TF32, but for that comparison; bfloat16 is PyTorch's autocast.
"""

import contextlib
import dataclasses
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import tyro

from benchmarks import output, problems, timing
from experiments import common
from uno_jax import foreign
from uno_jax._extras import require

MODELS = ("mnist_vae", "celeba_vae", "unet", "dit_small", "dit_b")


@dataclasses.dataclass(frozen=True)
class Options:
    """Time unlearning steps beside PyTorch's."""

    models: str = ",".join(MODELS[:4])
    """Of mnist_vae, celeba_vae, unet, dit_small and dit_b, with commas."""
    batch: int = 64
    """Examples of each kind."""
    rounds: int = 20
    """Timed steps of each method and library, at most."""
    seconds: float = 40.0
    """After so many, no further round of a model is begun."""
    methods: str = "retain-descent,surgery,uno"
    """Of retain-descent, surgery and uno, with commas."""
    compile: bool = True
    """Whether PyTorch's compiler is tried too; it needs a C++ compiler."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; not of the MNIST VAE."""
    output: Path | None = None
    """A folder for versus_pytorch.json and .md."""


def make_twin(name: str, problem: problems.Problem):
    """The twin of a problem, with its weights.

    Raises:
      ValueError: if there is none, or its arrays are not the same.
    """
    torch = require("torch", "bench")
    from benchmarks.torch_twins import denoisers, vaes

    torch.manual_seed(0)
    if name not in MODELS:
        raise ValueError(f"models: expected of {MODELS}, got {name!r}.")
    if name in ("mnist_vae", "celeba_vae"):
        twin = getattr(vaes, name)(problem.model)
    else:
        make = denoisers.unet if name == "unet" else denoisers.dit
        shape = {"side": 32, "channels": 4} if name == "dit_b" else {}
        twin = make(problem.model, problem.params, **shape)
    variables = {"params": problem.params, "batch_stats": problem.model_state}
    arrays = foreign.to_torch({k: v for k, v in variables.items() if v is not None}, twin.entries)
    missing, unexpected = twin.module.load_state_dict(
        {name: torch.tensor(np.array(array)) for name, array in arrays.items()}, strict=False
    )
    if unexpected or any("num_batches" not in name for name in missing):
        raise ValueError(f"twin: expected the same weights, got {missing} and {unexpected}.")
    return twin


def check(problem: problems.Problem, twin, batch: dict) -> float:
    """Returns how far the two gradients of the training loss are apart, relatively.

    Raises:
      ValueError: if they are not those of one model.
    """
    key = jax.random.key(7)
    with full_float32():
        ours, gradient = jax.jit(jax.value_and_grad(problem.value))(problem.params, batch, key)
        value = twin.loss(twin.module, twin.tensors(batch), twin.our_draws(key, batch))
        value.backward()
    apart = distance(gradient, twin)
    twin.module.zero_grad()
    if not (np.isclose(ours, value.item(), rtol=1e-4) and apart < 1e-3):
        raise ValueError(
            f"expected equal losses and gradients, got {ours} and {value.item()}, gradients "
            f"{apart:.1e} apart."
        )
    return apart


@contextlib.contextmanager
def full_float32():
    """Products inside it lose no bits on a GPU; behind it both libraries may take TF32."""
    import torch

    def allow(fewer_bits):
        if torch.cuda.is_available():
            torch.backends.cudnn.allow_tf32 = fewer_bits
            torch.backends.cuda.matmul.allow_tf32 = fewer_bits

    allow(False)
    try:
        with jax.default_matmul_precision("highest"):
            yield
    finally:
        allow(True)


def distance(gradient, twin) -> float:
    """How far the gradients that a twin holds are from one of ours, relatively."""
    expected = foreign.to_torch({"params": gradient}, twin.entries)
    pairs = [(expected[n], p.grad.cpu().numpy()) for n, p in twin.module.named_parameters()]
    apart, size = sum(np.sum((a - b) ** 2) for a, b in pairs), sum(np.sum(a**2) for a, _ in pairs)
    return float(np.sqrt(apart / size))


def programs_of(problem, twin, options: Options) -> dict:
    """A function without arguments for each method and library."""
    import torch

    from benchmarks.torch_twins import steps

    batches = problem.batches(options.batch)
    tensors = [twin.tensors(batch) for batch in batches]
    if options.dtype != "float32":
        twin = twin._replace(loss=_in_bfloat16(twin.loss))
    compiled = None
    if options.compile:
        compiled = torch.compile(lambda batch, draws: twin.loss(twin.module, batch, draws))
    found = {}
    for method in options.methods.split(","):
        step, state = problems.make_step(problem, method)
        found[method, "jax"] = timing.compile_program(step, state, *batches).run
        eager = steps.make_step(twin, method, weight=problem.weight)
        found[method, "torch"] = lambda step=eager: step(*tensors)
        if compiled and method not in steps.SECOND_ORDER:
            step = steps.make_step(twin, method, weight=problem.weight, wrap=lambda _: compiled)
            found[method, "torch.compile"] = lambda step=step: step(*tensors)
    return found


def _in_bfloat16(loss):
    import torch

    def cast(module, batch, draws):
        with torch.autocast(next(module.parameters()).device.type, torch.bfloat16):
            return loss(module, batch, draws)

    return cast


def measure(name: str, options: Options) -> list[dict]:
    """Returns a line per method and library of one model."""
    problem = problems.get_problem(name)
    twin = make_twin(name, problem)
    apart = check(problem, twin, problem.batches(options.batch)[0])
    if options.dtype != "float32":
        problem = problems.get_problem(name, dtype=options.dtype)
    times = timing.interleaved(
        programs_of(problem, twin, options), rounds=options.rounds, seconds=options.seconds
    )
    return [
        {
            "model": name,
            "batch": options.batch,
            "method": method,
            "library": library,
            **timing.spread(own),
            "jax_over_this": float(np.median(times[method, "jax"] / own)),
            "gradients_apart": apart,
        }
        for (method, library), own in times.items()
    ]


def table(lines: list[dict]) -> list[dict[str, str]]:
    """A row per model and method, the libraries side by side."""
    rows: dict[tuple, dict[str, str]] = {}
    for line in lines:
        row = rows.setdefault(
            (line["model"], line["method"]), {"model": line["model"], "method": line["method"]}
        )
        row[f"{line['library']}, ms"] = f"{line['median_ms']:.4g}"
        if line["library"] != "jax":
            row[f"jax / {line['library']}"] = f"{line['jax_over_this']:.2f}"
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    return [{key: row.get(key, "") for key in columns} for row in rows.values()]


def main(options: Options) -> list[dict]:
    """Prints the table and returns its lines."""
    torch = require("torch", "bench")
    lines: list[dict] = []
    for name in options.models.split(","):
        lines += measure(name, options)
        common.console.print(f"{name}: done")
    common.print_table(table(lines))
    facts = output.about(torch=torch.__version__, torch_threads=torch.get_num_threads())
    print(*(f"{key}: {value}" for key, value in facts.items()), sep="\n")
    if options.output:
        output.save(options.output, "versus_pytorch", lines, table(lines), facts=facts)
    return lines


if __name__ == "__main__":
    main(tyro.cli(Options))
