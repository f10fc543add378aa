"""One pure step: of training, and of unlearning."""

from collections.abc import Callable

import jax
import optax

from uno_jax.training.halves import make_finish, make_passes
from uno_jax.training.passes import make_pass
from uno_jax.training.state import TrainState


def make_training_step(
    loss_fn: Callable,
    tx: optax.GradientTransformation,
    *,
    has_model_state: bool = False,
    axis_name: str | None = None,
    reduction: str = "mean",
    accumulate: int = 1,
) -> Callable:
    """Builds a pure step of ordinary training.

    Args:
      loss_fn: `loss_fn(params, batch, key) -> scalar`; with `has_model_state`,
        `loss_fn(params, model_state, batch, key) -> (scalar, model_state)`.
      tx: an Optax transformation.
      has_model_state: whether the loss carries a model state along.
      axis_name: a mapped axis (of `jax.pmap`, or of `jax.shard_map` with
        `check_vma=False`) over which loss and
        gradient are joined and the model state is averaged.
      reduction: see `make_unlearning_step`.
      accumulate: see `make_unlearning_step`.

    Returns:
      `step(state, batch) -> (state, metrics)`, not jitted; metrics holds `loss`.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> import uno_jax as uno
      >>> tx = optax.sgd(0.25)
      >>> step = uno.make_training_step(lambda p, batch, key: jnp.sum((p - batch) ** 2), tx)
      >>> state = uno.create_state(jnp.zeros(2), tx, jax.random.key(0))
      >>> state, metrics = jax.jit(step)(state, jnp.ones(2))
      >>> state.params
      Array([0.5, 0.5], dtype=float32)
    """
    tx = optax.with_extra_args_support(tx)
    run = make_pass(
        loss_fn,
        has_model_state=has_model_state,
        axis_name=axis_name,
        reduction=reduction,
        accumulate=accumulate,
    )

    def step(state: TrainState, batch) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(state.key, state.step)
        result = run(state.params, state.model_state, batch, key)
        updates, opt_state = tx.update(result.grads, state.opt_state, state.params)
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            model_state=result.model_state,
            opt_state=opt_state,
        )
        return state, {"loss": result.loss}

    return step


def make_unlearning_step(
    loss_fn: Callable,
    tx: optax.GradientTransformation,
    *,
    forget_loss_fn: Callable | None = None,
    has_model_state: bool = False,
    descend: str = "retain",
    model_state_from: str = "both",
    axis_name: str | None = None,
    reduction: str = "mean",
    accumulate: int = 1,
) -> Callable:
    r"""Builds a pure step that makes a model forget.

    The step takes the losses :math:`L_r` and :math:`L_f` and their gradients on
    a retain and a forget batch, hands one gradient to `tx` as updates and
    everything as extra arguments, and applies what comes back. All methods are
    this one step with another `tx`. A loss is traced once, for both batches and for the
    products, as under `jax.jit` also where the step is not compiled.

    Args:
      loss_fn: `loss_fn(params, batch, key) -> scalar`; with `has_model_state`,
        `loss_fn(params, model_state, batch, key) -> (scalar, model_state)`.
      tx: an Optax transformation. Its `update` receives the keyword arguments
        `retain_grads`, `forget_grads`, `retain_grad_fn`, `forget_grad_fn` (from
        parameters, also masked ones, to the gradient at this step's batches and
        noise), `model_state` and `key`.
      forget_loss_fn: the loss on forget batches; `None` means `loss_fn`.
      has_model_state: whether the losses carry a model state along.
      descend: `"retain"` or `"forget"`, the gradient that enters `tx` as updates.
      model_state_from: which pass updates the model state, for example the
        running statistics of batch norm: `"both"` (first the retain batch, then
        the forget batch; the published code passes forget, then retain, then the latents
        it counts on), `"retain"`, `"forget"` or `"none"`. A batch of a single class moves
        the statistics towards it.
      axis_name: a mapped axis (of `jax.pmap`, or of `jax.shard_map` with
        `check_vma=False`) over which losses and
        gradients are joined before any dot product; each device draws its own noise.
        Under `jit` with arrays on a mesh it is not needed.
      reduction: how the losses reduce their batch, `"mean"` or `"sum"`; so are the
        parts joined that devices or micro-batches give.
      accumulate: micro-batches that each batch is taken in, one after the other, for
        batches that do not fit: both gradients and their products are accumulated
        before any dot product. The model state goes through them in turn. The step
        is that of the whole batch but for the noise, which is drawn per micro-batch,
        and for batch norm, which sees one micro-batch at a time.

    Returns:
      `step(state, retain_batch, forget_batch) -> (state, metrics)`, pure and not
      jitted. metrics holds the float32 scalars `retain_loss`, `forget_loss`,
      `cosine`, `retain_norm` and `forget_norm`, all from before the update; where `tx`
      holds `uno.orthogonalize`, also `penalty_norm` and `penalty_ratio` of its state, of
      several the first; in `uno.alternate` those of its newest turn.

    Raises:
      ValueError: for an unknown `descend`, `model_state_from` or `reduction`.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> import uno_jax as uno
      >>> loss_fn = lambda params, batch, key: jnp.mean((batch @ params) ** 2)
      >>> tx = optax.chain(uno.orthogonalize(weight=0.1), optax.adam(1e-3))
      >>> step = jax.jit(uno.make_unlearning_step(loss_fn, tx), donate_argnums=0)
      >>> state = uno.create_state(jnp.ones(2), tx, jax.random.key(0))
      >>> state, metrics = step(state, jnp.eye(2), jnp.array([[1.0, 0.0]]))
      >>> sorted(metrics)[:4]
      ['cosine', 'forget_loss', 'forget_norm', 'penalty_norm']
    """
    finish = make_finish(tx, descend)
    passes = make_passes(
        loss_fn,
        forget_loss_fn=forget_loss_fn,
        has_model_state=has_model_state,
        model_state_from=model_state_from,
        axis_name=axis_name,
        reduction=reduction,
        accumulate=accumulate,
    )

    def step(state: TrainState, retain_batch, forget_batch):
        return finish(state, *passes(state, retain_batch, forget_batch))

    return step
