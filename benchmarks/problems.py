"""What is timed: a model, its training loss, and batches of noise in the shape of its data."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import uno_jax as uno
from experiments import dit_models
from uno_jax import diffusion, models


class Problem(NamedTuple):
    """A model to be timed.

    Attributes:
      model: the Flax module.
      loss_fn: its training loss.
      params: its parameters, as initialised.
      model_state: batch statistics, or None.
      batches: `batches(size)`, a retain and a forget batch.
      weight: w of UNO.
    """

    model: Any
    loss_fn: Callable
    params: Any
    model_state: Any
    batches: Callable[[int], tuple[dict, dict]]
    weight: float

    @property
    def has_model_state(self) -> bool:
        return self.model_state is not None

    def value(self, params: Any, batch: dict, key: jax.Array) -> jax.Array:
        """The loss alone."""
        if self.has_model_state:
            return self.loss_fn(params, self.model_state, batch, key)[0]
        return self.loss_fn(params, batch, key)

    @property
    def parameters(self) -> int:
        return models.parameter_count(self.params)


def mnist_vae(hidden: int = 400) -> Problem:
    return _vae(models.MnistVAE(hidden=hidden), (784,), (0.0, 1.0))


def celeba_vae(channels=(32, 64, 128, 256, 512), latents: int = 512, **changes: Any) -> Problem:
    return _vae(models.ConvVAE(channels, latents, **changes), (64, 64, 3), (-1.0, 1.0))


def unet(**changes: Any) -> Problem:
    """The experiment's, on digits of 28x28."""
    network = dit_models.network("unet").clone(**changes)
    return _denoiser(network, dit_models.process(network), dit_models.SHAPE)


def dit_small(**changes: Any) -> Problem:
    """The experiment's, on digits of 28x28; with remat in one scan over its blocks."""
    network = dit_models.network("dit").clone(scan=changes.get("remat", False), **changes)
    return _denoiser(network, dit_models.process(network), dit_models.SHAPE)


def dit_s(**changes: Any) -> Problem:
    """DiT-S/8 as published, on latents of 32x32x4."""
    return published("S/8", **changes)


def published(size: str, **options: Any) -> Problem:
    """A DiT of a published size, in one scan over its blocks."""
    network = models.dit(size, scan=True, **options)
    return _denoiser(network, dit_models.latent_process(network), (32, 32, 4), stack=True)


def dit_b(**changes: Any) -> Problem:
    """DiT-B/2 on latents of 32x32x4, predicting a velocity; a scan over blocks kept apart."""
    network = models.dit("B/2", learned_variance=False, scan=True, **changes)
    return _denoiser(network, dit_models.process(network), (32, 32, 4))


PROBLEMS = {
    "mnist_vae": mnist_vae,
    "celeba_vae": celeba_vae,
    "unet": unet,
    "dit_small": dit_small,
    "dit_s": dit_s,
    "dit_b": dit_b,
}


def get_problem(name: str, *, dtype: str = "float32", remat: bool = False) -> Problem:
    """Builds the problem of that name.

    Args:
      name: one of `PROBLEMS`, or a published size such as `DiT-XL/2`.
      dtype: of the computation.
      remat: whether a denoiser's blocks are computed again in the backward pass.

    Raises:
      ValueError: naming the known ones, or what a model cannot do.
    """
    changes: dict[str, Any] = {"dtype": jnp.dtype(dtype)} if dtype != "float32" else {}
    if remat:
        changes["remat"] = True
    if (changes and name == "mnist_vae") or (remat and name == "celeba_vae"):
        raise ValueError(f"{name}: expected float32 without remat, got {changes}.")
    if name.startswith("DiT-"):
        return published(name.removeprefix("DiT-"), **changes)
    if name not in PROBLEMS:
        raise ValueError(f"models: expected of {sorted(PROBLEMS)} or DiT-SIZE, got {name!r}.")
    return PROBLEMS[name](**changes)


def _key() -> jax.Array:
    """Of initial parameters: a generator whose programs compile in 0.4 of the time in all."""
    return jax.random.key(0, impl="unsafe_rbg")


def _vae(model, shape, pixel_range) -> Problem:
    init = jax.jit(lambda key, x, z: model.init(key, x, z, train=True))
    images = jnp.zeros((2, *shape))
    variables = init(_key(), images, jnp.zeros((2, model.latents)))

    def batches(size):
        rng = np.random.default_rng(0)
        draws = rng.uniform(*pixel_range, size=(2, size, *shape)).astype(np.float32)
        return tuple({"image": jnp.asarray(draw)} for draw in draws)

    loss_fn = models.make_vae_loss(model)
    return Problem(model, loss_fn, variables["params"], variables["batch_stats"], batches, 1e3)


def _denoiser(network, process, shape, stack: bool = False) -> Problem:
    images = jnp.zeros((2, *shape)), jnp.zeros(2), jnp.zeros(2, jnp.int32)
    params = jax.jit(network.init)(_key(), *images)["params"]
    # Behind a layer that starts at zero all gradients would be zero.
    params = jax.tree.map(lambda leaf: leaf + 0.01, params)
    params = models.stack_blocks(params) if stack else params
    loss_fn = diffusion.make_diffusion_loss(process, label_dropout=0.1)

    def batches(size):
        rng = np.random.default_rng(0)
        return tuple(
            {
                "image": jnp.asarray(rng.normal(size=(size, *shape)), jnp.float32),
                "label": jnp.asarray(rng.integers(0, network.classes, size), jnp.int32),
            }
            for _ in range(2)
        )

    return Problem(network, loss_fn, params, None, batches, 1e-2)


def transformation(problem: Problem, method: str) -> tuple[optax.GradientTransformation, str]:
    """The transformation of a method, Adam behind it, and the gradient that enters it."""
    row = uno.methods.get_method(method)
    ones = None
    if "second_moment" in row.needs:
        ones = jax.tree.map(jnp.ones_like, problem.params)
    tx = row.build(optax.adam(1e-4), weight=problem.weight, second_moment=ones)
    return tx, row.descend


def make_step(problem: Problem, method: str, **options: Any) -> tuple[Callable, uno.TrainState]:
    """The unlearning step of a method, not jitted, and the state it begins with.

    Args:
      problem: the model.
      method: a name of the table of methods.
      **options: of `uno.make_unlearning_step`.

    Returns:
      The step and the state.
    """
    tx, descend = transformation(problem, method)
    step, state = with_transformation(problem, tx, descend=descend, **options)
    if method == "retain-descent":
        # The control is ordinary training: a step that never looks at the forget batch.
        plain = uno.make_training_step(problem.loss_fn, tx, has_model_state=problem.has_model_state)
        step = lambda state, retain, forget: plain(state, retain)  # noqa: E731
    return step, state


def with_transformation(problem: Problem, tx, **options: Any) -> tuple[Callable, uno.TrainState]:
    """The step of a transformation, not jitted, and the state it begins with."""
    step = uno.make_unlearning_step(
        problem.loss_fn, tx, has_model_state=problem.has_model_state, **options
    )
    return step, first_state(problem, tx)


def first_state(problem: Problem, tx: optax.GradientTransformation) -> uno.TrainState:
    """The state that a transformation begins with."""
    return uno.create_state(problem.params, tx, jax.random.key(0), model_state=problem.model_state)


def timed_methods() -> tuple[str, ...]:
    """Methods whose step is one of `make_unlearning_step` on any model, without more."""
    return tuple(
        name
        for name, row in uno.methods.METHODS.items()
        if not row.matches and "labels" not in row.needs and row.gradients
    )
