"""Step times beside PyTorch: the CelebA VAE, alternating, in one process.

    pip install '.[bench]'
    python -m benchmarks.versus_pytorch --batch 64

The twin gets our weights, and both must agree on the loss and its gradient before
anything is timed. Rounds alternate between the two libraries and all methods, so that
drift of the machine hits all alike; every step is blocked on; compilation is not counted.
Ours makes the unlearning step with its metrics, PyTorch what the method needs, eager.
"""

import dataclasses
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import uno_jax as uno
from experiments.common import facts, print_table
from uno_jax import foreign, models
from uno_jax._extras import require


@dataclasses.dataclass(frozen=True)
class Options:
    """Time the unlearning step of the CelebA VAE beside PyTorch's."""

    batch: int = 64
    """Faces of each kind."""
    rounds: int = 10
    """Timed steps of each method and library."""
    methods: tuple[str, ...] = ("retain-descent", "surgery", "uno")
    """retain-descent, surgery or uno."""
    channels: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Of the VAE's convolutions."""
    latents: int = 512
    """Dimension of its latent space."""
    output: Path | None = None
    """A JSON file for the numbers."""


def build(options: Options):
    """Returns our variables and model, the twin, and two batches."""
    torch = require("torch", "bench")
    from benchmarks.torch_twins import conv_vae

    model = models.ConvVAE(options.channels, options.latents)
    images = np.random.default_rng(0).uniform(-1, 1, (2, options.batch, 64, 64, 3))
    images = images.astype(np.float32)
    variables = jax.jit(lambda key, x, z: model.init(key, x, z, train=True))(
        jax.random.key(0), images[0, :2], jnp.zeros((2, options.latents))
    )
    torch.manual_seed(0)
    twin = conv_vae.ConvVAE(options.channels, options.latents)
    entries = foreign.conv_vae(options.channels)
    arrays = foreign.to_torch(variables, entries)
    missing, unexpected = twin.load_state_dict(
        {name: torch.tensor(np.ascontiguousarray(a)) for name, a in arrays.items()}, strict=False
    )
    if unexpected or any("num_batches" not in name for name in missing):
        raise ValueError(f"twin: expected the same weights, got {missing} and {unexpected}.")
    return model, variables, twin, images, entries


def check(options: Options, model, variables, twin, images, entries) -> float:
    """Returns how far the two gradients of the training loss are apart, relatively."""
    import torch

    from benchmarks.torch_twins import conv_vae

    key = jax.random.key(7)
    loss_fn = models.make_vae_loss(model)
    (ours, _), gradient = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(
        variables["params"], variables["batch_stats"], {"image": images[0]}, key
    )
    noise = np.array(jax.random.normal(key, (options.batch, options.latents)))
    value = conv_vae.loss(
        twin, torch.tensor(images[0].transpose(0, 3, 1, 2).copy()), torch.tensor(noise)
    )
    value.backward()
    expected = foreign.to_torch({"params": gradient}, entries)
    pairs = [(expected[n], p.grad.numpy()) for n, p in twin.named_parameters()]
    twin.zero_grad()
    apart = np.sqrt(sum(np.sum((a - b) ** 2) for a, b in pairs))
    apart /= np.sqrt(sum(np.sum(b**2) for _, b in pairs))
    if not (np.isclose(ours, value.item(), rtol=1e-4) and apart < 1e-3):
        raise ValueError(
            f"expected equal losses and gradients, got {ours} and {value.item()}, gradients "
            f"{apart:.1e} apart."
        )
    return float(apart)


def compile_step(method: str, model, variables, images):
    """Our step as a function without arguments."""
    tx = uno.methods.get_method(method).build(optax.adam(1e-3), weight=1e3)
    state = uno.create_state(
        variables["params"], tx, jax.random.key(0), model_state=variables["batch_stats"]
    )
    batches = [{"image": jnp.asarray(part)} for part in images]
    loss_fn = models.make_vae_loss(model)
    if method == "retain-descent":
        step = uno.make_training_step(loss_fn, tx, has_model_state=True)
        arguments = (state, batches[0])
    else:
        step = uno.make_unlearning_step(loss_fn, tx, has_model_state=True)
        arguments = (state, *batches)
    compiled = jax.jit(step).lower(*arguments).compile()
    return lambda: jax.block_until_ready(compiled(*arguments))


def main(options: Options) -> list[dict]:
    """Prints the table and returns its rows."""
    model, variables, twin, images, entries = build(options)
    import torch

    from benchmarks.torch_twins import conv_vae

    apart = check(options, model, variables, twin, images, entries)
    pictures = [torch.tensor(part.transpose(0, 3, 1, 2).copy()) for part in images]
    steps = {}
    for method in options.methods:
        steps[method, "jax"] = compile_step(method, model, variables, images)
        eager = conv_vae.make_step(twin, method)
        steps[method, "torch"] = lambda eager=eager: eager(*pictures)
    times: dict = {name: [] for name in steps}
    for number in range(options.rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if number:
                times[name].append(1e3 * (time.perf_counter() - start))
    rows = []
    for method in options.methods:
        ours, theirs = times[method, "jax"], times[method, "torch"]
        rows.append(
            {
                "method": method,
                "jax ms": float(np.median(ours)),
                "jax fastest": min(ours),
                "torch ms": float(np.median(theirs)),
                "torch fastest": min(theirs),
                "ratio": float(np.median(ours) / np.median(theirs)),
                "ratio of fastest": min(ours) / min(theirs),
            }
        )
    print_table([{k: v if k == "method" else f"{v:.2f}" for k, v in r.items()} for r in rows])
    about = {**facts(), "torch": torch.__version__, "torch threads": torch.get_num_threads()}
    print(
        f"gradients {apart:.1e} apart; {about['device']}; {about['versions']}; torch "
        f"{about['torch']}, {about['torch threads']} threads"
    )
    if options.output:
        result = {"rows": rows, "batch": options.batch, "gradients apart": apart, **about}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return rows


if __name__ == "__main__":
    main(tyro.cli(Options))
