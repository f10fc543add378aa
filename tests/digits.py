"""A small conditional diffusion model of 8x8 digits, trained in seconds."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import uno_jax as uno
from uno_jax import diffusion
from uno_jax.case import Case
from uno_jax.training.examples import read_examples

SHAPE, HIDDEN, CLASSES = (8, 8, 1), 256, 10


def init(key, hidden=HIDDEN):
    keys = jax.random.split(key, 6)

    def dense(key, rows, columns):
        return jax.random.normal(key, (rows, columns)) / np.sqrt(rows)

    return {
        "label": {"table": 0.5 * jax.random.normal(keys[0], (CLASSES + 1, hidden))},
        "time": dense(keys[1], 32, hidden),
        "in": dense(keys[2], 64, hidden),
        "body": [dense(key, hidden, hidden) for key in keys[3:5]],
        "out": dense(keys[5], hidden, 64),
    }


def network(params, noisy, times, labels):
    angles = jnp.exp(jnp.linspace(0.0, 6.0, 16)) / 1000 * times[:, None]
    told = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1) @ params["time"]
    told = told + params["label"]["table"][labels]
    hidden = noisy.reshape(len(noisy), -1) @ params["in"] + told
    for weights in params["body"]:
        hidden = hidden + jax.nn.silu(hidden + told) @ weights
    return (jax.nn.silu(hidden) @ params["out"]).reshape(noisy.shape)


MODEL = diffusion.Diffusion(network, diffusion.cosine(200), prediction="v", null_label=CLASSES)


def load():
    images, labels = load_digits(return_X_y=True)
    images = (images / 8 - 1).astype(np.float32).reshape(-1, *SHAPE)
    return images, labels.astype(np.int32)


def sides(forgotten=3, count=None):
    images, labels = (array[:count] for array in load())
    return {
        name: {"image": images[rows], "label": labels[rows]}
        for name, rows in (("retain", labels != forgotten), ("forget", labels == forgotten))
    }


def train(steps=1200):
    tx = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
    loss_fn = diffusion.make_diffusion_loss(MODEL, label_dropout=0.1)
    step = jax.jit(uno.make_training_step(loss_fn, tx), donate_argnums=0)
    state = uno.create_state(init(jax.random.key(0)), tx, jax.random.key(1))
    images, labels = load()
    batches = read_examples({"image": images, "label": labels}, "all").batches(128, seed=0)
    for _ in range(steps):
        state, _ = step(state, next(batches))
    return state.params


class Slow:
    """Batches that can be read again, and take a while: there is time to strike."""

    def __init__(self, arrays, pause):
        self.arrays, self.pause = arrays, pause
        self.read, self.interrupted_after = 0, None

    def __iter__(self):
        for begin in range(0, len(self.arrays["label"]), 64):
            time.sleep(self.pause)
            self.read += 1
            if self.read == self.interrupted_after:
                raise KeyboardInterrupt
            yield {name: array[begin : begin + 64] for name, array in self.arrays.items()}


def make_case(pause=0.02):
    """Of an untrained model, for the tests of running and resuming."""
    both = sides(count=400)
    retain = Slow(both["retain"], pause)
    options = {"steps": 24, "save_every": 3, "exchange": 5, "batch_size": 64}
    return Case(MODEL, init(jax.random.key(3), 16), retain, both["forget"], options=options)
