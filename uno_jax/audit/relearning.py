"""What a model learns again: from retained data alone, and from a few forget examples.

The control is made here too: as many steps of retain descent from the model before.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import uno_jax as uno
from uno_jax.audit import case as cases
from uno_jax.audit import judging
from uno_jax.audit.evidence import CONTROL, RELEARNING, draw, key_of, losses_of
from uno_jax.audit.settings import Settings


def adam_trainer(
    loss_fn: Callable, learning_rate: float = 1e-3, optimizer: Any = None
) -> cases.Trainer:
    """Goes on training with a cold Adam on the mean of a loss of each example.

    Args:
      loss_fn: `loss_fn(params, batch, key) -> (n,)`.
      learning_rate: of Adam.
      optimizer: an Optax transformation instead of it.

    Returns:
      A `Trainer`.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from uno_jax import audit
      >>> loss_fn = lambda params, batch, key: (params - batch["image"]) ** 2
      >>> trainer = audit.adam_trainer(loss_fn, learning_rate=0.5)
      >>> state = trainer.start(jnp.zeros(()), jax.random.key(0))
      >>> state, _ = trainer.step(state, {"image": jnp.ones(3)})
      >>> print(f"{trainer.params(state):.2f}")
      0.50
    """
    tx = optimizer or optax.adam(learning_rate)

    def mean(params, batch, key):
        return jnp.mean(loss_fn(params, batch, key))

    return cases.Trainer(
        start=lambda params, key: uno.create_state(params, tx, key),
        step=uno.make_training_step(mean, tx),
        params=lambda state: state.params,
    )


def jit_steps(model: cases.Model) -> dict[str, cases.Trainer]:
    """The model's trainers with jitted steps; one from its loss if it has none."""
    trainers = dict(model.trainers)
    if not trainers and model.loss_fn:
        trainers = {"Adam": adam_trainer(model.loss_fn)}
    return {name: t._replace(step=jax.jit(t.step)) for name, t in trainers.items()}


def descend(
    trainer: cases.Trainer, params: Any, stream: Iterator[dict], marks: tuple[int, ...], key
) -> Iterator[tuple[int, Any]]:
    """Trains on and yields the parameters after each of some numbers of steps."""
    state = trainer.start(params, key)
    for step, batch in zip(range(1, max(marks) + 1), stream, strict=False):
        state, _ = trainer.step(state, batch)
        if step in marks:
            yield step, trainer.params(state)


def make_control(case: cases.Case, settings: Settings, trainer: cases.Trainer) -> Any:
    """As many steps of retain descent as the method made, from the model before."""
    stream = cases.batches(case.data.retain, settings.batch_size, settings.seed + 11)
    key = key_of(settings, CONTROL)
    ((_, params),) = descend(trainer, case.params["before"], stream, (case.steps,), key)
    return params


def measure(
    params: Any,
    case: cases.Case,
    trainers: dict[str, cases.Trainer],
    judge: cases.Judge,
    settings: Settings,
) -> dict:
    """Trains a model on and looks at what it draws.

    Args:
      params: of the model.
      case: its functions and the data.
      trainers: of `jit_steps`; the first fine-tunes on forget examples.
      judge: who looks, one that took no part.
      settings: steps, examples and samples.

    Returns:
      `retain`: trainer to steps to a proportion; `forget`: number of examples to steps to
      `fraction` and, of examples not trained on, `forget_loss`.
    """
    key = key_of(settings, RELEARNING)
    sample = jax.jit(case.model.sample, static_argnums=2)

    def fraction(now):
        images = draw(sample, now, key, settings.relearn_samples)
        return judging.forgotten(judge, images)._asdict()

    found: dict = {"retain": {}, "forget": {}}
    for name, trainer in trainers.items():
        stream = cases.batches(case.data.retain, settings.batch_size, settings.seed + 7)
        found["retain"][name] = {
            str(step): fraction(now)
            for step, now in descend(trainer, params, stream, settings.retain_steps, key)
        }
    trainer = next(iter(trainers.values()))
    size = max(settings.forget_examples)
    rng = np.random.default_rng(settings.seed + 8)
    order = rng.permutation(cases.count(case.data.forget))
    unseen = _unseen(case.data, order[size:], settings)
    loss_fn = jax.jit(case.model.loss_fn) if case.model.loss_fn else None
    for number in settings.forget_examples:
        # Fewer examples are repeated, so that one program does for all.
        rows = np.resize(order[:number], size)
        stream = iter(lambda rows=rows: cases.take(case.data.forget, rows), None)
        found["forget"][str(number)] = {}
        for step, now in descend(trainer, params, stream, settings.forget_steps, key):
            row = {"fraction": fraction(now)}
            if loss_fn and unseen:
                row["forget_loss"] = float(np.mean(losses_of(loss_fn, now, unseen, key, 1)))
            found["forget"][str(number)][str(step)] = row
    return found


def _unseen(data: cases.Data, rest: np.ndarray, settings: Settings) -> dict | None:
    """Forget examples that relearning does not train on."""
    if side := data.forget_held_out:
        return cases.take(side, np.arange(min(cases.count(side), settings.examples)))
    return cases.take(data.forget, rest[: settings.examples]) if len(rest) else None
