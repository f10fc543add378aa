"""The published MNIST models, from the folder that holds their weights."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import uno_jax as uno
from uno_jax import foreign, models


def load_vae(path: Path) -> uno.TrainState:
    """The VAE of an npz or safetensors file in PyTorch layout, as a state at step 0."""
    variables = foreign.from_torch(foreign.read_arrays(path), foreign.MNIST_VAE)
    variables = jax.tree.map(jnp.asarray, variables)
    return uno.create_state(
        variables["params"],
        optax.identity(),
        jax.random.key(0),
        model_state=variables["batch_stats"],
    )


def load_guide(path: Path) -> tuple[Callable, Callable]:
    """The published classifier, without its batch norm, as the published code judges.

    Returns:
      From (N, 784) images to (N, 10) logits, and to (N, 200) features: the hidden layer
      behind its ReLU.
    """
    variables = foreign.from_torch(foreign.read_arrays(path), foreign.DIGIT_MLP)
    params = {
        name: jax.tree.map(jnp.asarray, layer)
        for name, layer in variables["params"].items()
        if name != "norm"
    }
    model = models.DigitMLP()

    def classify(images):
        return model.apply({"params": params}, images)

    def features(images):
        return jax.nn.relu(images @ params["hidden"]["kernel"] + params["hidden"]["bias"])

    return classify, features
