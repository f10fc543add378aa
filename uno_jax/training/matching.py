"""The step of an objective made of terms: redirect what is forgotten, hold the rest."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from uno_jax import trees
from uno_jax.losses.matching import Term, curvature
from uno_jax.training.halves import step_metrics
from uno_jax.training.state import TrainState
from uno_jax.training.subset import join


def _halves(batch: Any) -> tuple[Any, Any]:
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(batch)}
    if len(sizes) != 1 or min(sizes) < 2:
        raise ValueError(
            f"batch: expected arrays of one length of at least 2 along their first axis, "
            f"got {sorted(sizes)}."
        )
    half = sizes.pop() // 2
    return tuple(
        jax.tree.map(lambda leaf, part=part: leaf[part], batch)
        for part in (slice(half), slice(half, 2 * half))
    )


def _bind(term: Term, frozen: Any) -> Term:
    """The same term as one of the trainable parameters."""

    def bind(function):
        return lambda params, batch, key: function(join(params, frozen), batch, key)

    return term._replace(loss_fn=bind(term.loss_fn), outputs_fn=bind(term.outputs_fn))


def make_matching_step(
    retain_term: Term,
    forget_term: Term,
    tx: optax.GradientTransformation,
    *,
    axis_name: str | None = None,
    has_frozen: bool = False,
    hold_out: bool = True,
) -> Callable:
    r"""Builds a pure step on :math:`J = w_f J_{\text{redirect}} + w_r J_{\text{anchor}}`.

    The first half of each batch gives the gradient and the curvature, the second
    half, which these have not seen, gives the value that a line search asks for. With
    `hold_out=False` the whole batch gives all three.

    Args:
      retain_term: what must not move, for example `uno.losses.anchor(...)`.
      forget_term: what the forgotten data are redirected to, `uno.losses.match(...)`.
      tx: an Optax transformation fed the gradient of J, such as
        `uno.methods.get_method("redirect").build(...)`. Its `update` receives the
        keyword arguments `curvature_fn`, `value_fn`, `retain_grads` and
        `forget_grads`.
      axis_name: a mapped axis (of `jax.pmap`, or of `jax.shard_map` with
        `check_vma=False`) over which gradients,
        products of the curvature and values are averaged.
      has_frozen: whether `state.params` and `state.model_state` are the two trees of a
        `Subset`. The functions of the terms then take the joined parameters; gradients and
        products exist for `state.params` alone, and the frozen parameters are an argument
        of the compiled step rather than constants of it.
      hold_out: whether half of each batch is held out. Not, for a transformation that asks
        for no value, such as `optax.adam`: it is spared two evaluations of J.

    Returns:
      `step(state, retain_batch, forget_batch) -> (state, metrics)`, pure and not
      jitted. metrics holds `retain_loss`, `forget_loss` (both unweighted),
      `cosine`, `retain_norm` and `forget_norm` from before the update, and with
      `hold_out` `objective` and `objective_after`, J on the second halves.

    Raises:
      ValueError: when traced, if a batch cannot be halved.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> import uno_jax as uno
      >>> outputs_fn = lambda params, batch, key: batch @ params
      >>> original = jnp.ones((2, 1))
      >>> from uno_jax import losses, transforms
      >>> tx = optax.chain(
      ...     transforms.scale_by_gauss_newton(1e-3), optax.scale(-1.0), transforms.line_search())
      >>> step = jax.jit(uno.make_matching_step(
      ...     losses.anchor(outputs_fn, original, losses.gaussian()),
      ...     losses.match(outputs_fn, lambda batch, key: 0.0 * batch[:, :1], losses.gaussian()),
      ...     tx))
      >>> state = uno.create_state(original, tx, jax.random.key(0))
      >>> retain, forget = jnp.tile(jnp.array([[1.0, 0.0]]), (4, 1)), jnp.eye(2)[1:].repeat(4, 0)
      >>> state, metrics = step(state, retain, forget)
      >>> state.params.round(2).ravel()
      Array([1., 0.], dtype=float32)
    """
    tx = optax.with_extra_args_support(tx)
    terms = retain_term, forget_term

    def mean(tree):
        return tree if axis_name is None else jax.lax.pmean(tree, axis_name)

    def step(state: TrainState, retain_batch, forget_batch):
        key = jax.random.fold_in(state.key, state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        keys = jax.random.split(key, 4)
        split = _halves if hold_out else lambda batch: (batch, batch)
        (retain, retain_fresh), (forget, forget_fresh) = map(split, (retain_batch, forget_batch))
        bound = [_bind(t, state.model_state) for t in terms] if has_frozen else terms
        used = list(zip(bound, (retain, forget), keys[:2], strict=True))
        fresh = list(zip(bound, (retain_fresh, forget_fresh), keys[2:], strict=True))

        def value_fn(params):
            params = trees.fill_masked(params, state.params)
            values = [t.weight * t.loss_fn(params, batch, key) for t, batch, key in fresh]
            return mean(jnp.asarray(sum(values)))

        def curvature_fn(visible):
            params = trees.fill_masked(visible, state.params)
            products = [curvature(t, params, batch, key) for t, batch, key in used]
            hidden = jax.tree.map(jnp.zeros_like, params)

            def product(vector):
                vector = trees.fill_masked(vector, hidden)
                parts = [p(vector) for p in products]
                total = trees.combine(terms[0].weight, parts[0], terms[1].weight, parts[1])
                return trees.restrict(mean(total), visible)

            return product

        (retain_loss, retain_grads), (forget_loss, forget_grads) = (
            mean(jax.value_and_grad(t.loss_fn)(state.params, batch, key)) for t, batch, key in used
        )
        total = trees.combine(retain_term.weight, retain_grads, forget_term.weight, forget_grads)
        updates, opt_state = tx.update(
            trees.cast_like(total, state.params),
            state.opt_state,
            state.params,
            retain_grads=retain_grads,
            forget_grads=forget_grads,
            curvature_fn=curvature_fn,
            value_fn=value_fn,
        )
        params = optax.apply_updates(state.params, updates)
        metrics = step_metrics(retain_loss, retain_grads, forget_loss, forget_grads)
        if hold_out:
            metrics |= {
                "objective": value_fn(state.params),
                "objective_after": value_fn(params),
            }
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics

    return step
