"""A model whose knowledge is known: a mixture of Gaussians, one component per class.

`logits` say how often a class is drawn and how probable it is held for, `means` what it looks
like, and `hide` takes the forgotten class out of sampling alone, as a filter in front of the model
would.
"""

import jax
import jax.numpy as jnp
import numpy as np

from uno_jax import audit

CLASSES, SIDE = 4, 12
FORGOTTEN = 1
SCALE = 0.5
SETTINGS = audit.Settings(
    samples=1000, examples=200, draws=1, judge_steps=150, retain_steps=(5, 20),
    forget_steps=(1, 10), forget_examples=(1, 8), relearn_samples=500, batch_size=64, resamples=100,
)  # fmt: skip


def means() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(CLASSES, SIDE)).astype(np.float32)


def params(**changes) -> dict:
    base = {
        "logits": jnp.zeros(CLASSES),
        "means": jnp.asarray(means()),
        "hide": jnp.zeros(()),
    }
    return base | {name: jnp.asarray(value, jnp.float32) for name, value in changes.items()}


def without(logit: float = -8.0) -> np.ndarray:
    logits = np.zeros(CLASSES)
    logits[FORGOTTEN] = logit
    return logits


def sample(params, key, n):
    class_key, noise_key = jax.random.split(key)
    hidden = jnp.where(jnp.arange(CLASSES) == FORGOTTEN, -1e3 * params["hide"], 0.0)
    classes = jax.random.categorical(class_key, params["logits"] + hidden, shape=(n,))
    return params["means"][classes] + SCALE * jax.random.normal(noise_key, (n, SIDE))


def loss_fn(params, batch, key):
    """Minus the log density, in nats, up to a constant."""
    del key
    distances = jnp.sum((batch["image"][:, None] - params["means"]) ** 2, axis=-1)
    weights = jax.nn.log_softmax(params["logits"])
    return -jax.nn.logsumexp(weights - 0.5 * distances / SCALE**2, axis=-1)


def side(classes, count: int, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    labels = np.resize(np.array(classes), count)
    noise = rng.normal(size=(count, SIDE))
    return {
        "image": (means()[labels] + SCALE * noise).astype(np.float32),
        "label": labels.astype(np.int64),
    }


def data(**changes) -> audit.Data:
    kept = [c for c in range(CLASSES) if c != FORGOTTEN]
    sides = {
        "retain": side(kept, 600, 1),
        "forget": side([FORGOTTEN], 200, 2),
        "retain_held_out": side(kept, 300, 3),
        "forget_held_out": side([FORGOTTEN], 200, 4),
    }
    return audit.Data(**(sides | changes))


MODEL = audit.Model(sample, loss_fn, None, {"Adam": audit.adam_trainer(loss_fn, 1e-2)})


def case(after=None, *, model=MODEL, **changes) -> audit.Case:
    trees = {
        "before": params(),
        "after": params() if after is None else after,
        "retrained": params(logits=without(-8.0)),
    }
    return audit.Case(**({"data": data(), "params": trees, "model": model} | changes))
