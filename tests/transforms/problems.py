"""Small random problems with every oddity a parameter tree can have."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np


def random_tree(seed, dtype=jnp.float32, scale=1.0):
    """A nested tree with a scalar, a None leaf and an empty container."""
    rng = np.random.default_rng(seed)
    return {
        "dense": {
            "kernel": jnp.asarray(scale * rng.normal(size=(3, 4)), dtype),
            "bias": jnp.asarray(scale * rng.normal(size=(4,)), dtype),
        },
        "nothing": None,
        "scalar": jnp.asarray(scale * rng.normal(), dtype),
        "empty": (),
    }


def flat(tree):
    """The tree as one float64 vector."""
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])


def mlp_params(seed, sizes, dtype=jnp.float32):
    """Parameters of a small tanh network."""
    rng = np.random.default_rng(seed)
    return [
        {
            "w": jnp.asarray(rng.normal(size=(m, n)) / np.sqrt(m), dtype),
            "b": jnp.asarray(0.1 * rng.normal(size=n), dtype),
        }
        for m, n in itertools.pairwise(sizes)
    ]


def mlp_loss(params, batch):
    """Mean squared error of a tanh network, in float32."""
    x, y = batch
    for layer in params[:-1]:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    x = x @ params[-1]["w"] + params[-1]["b"]
    return jnp.mean((x.astype(jnp.float32) - y) ** 2)


def mlp_batch(seed, count, sizes):
    """Inputs and targets for `mlp_loss`."""
    rng = np.random.default_rng(seed)
    return (
        jnp.asarray(rng.normal(size=(count, sizes[0])), jnp.float32),
        jnp.asarray(rng.normal(size=(count, sizes[-1])), jnp.float32),
    )


def mlp_problem(seed, sizes=(3, 5, 2), dtype=jnp.float32):
    """Parameters and the retain and forget losses of one problem."""
    params = mlp_params(seed, sizes, dtype)
    retain, forget = mlp_batch(seed + 1, 7, sizes), mlp_batch(seed + 2, 6, sizes)
    return params, lambda p: mlp_loss(p, retain), lambda p: mlp_loss(p, forget)
