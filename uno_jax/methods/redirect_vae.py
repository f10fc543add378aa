"""The redirect for a VAE of any kind: which parameters move, and by which solver."""

from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from uno_jax import trees
from uno_jax.generative.vae import VAE
from uno_jax.methods.job import Job
from uno_jax.redirect.layers import first_layer, output_layer, used_leaves
from uno_jax.redirect.vae import COUNT, check_sides, vae_redirect
from uno_jax.training import subset
from uno_jax.training.matching import make_matching_step
from uno_jax.training.state import create_state
from uno_jax.transforms.gauss_newton import scale_by_gauss_newton
from uno_jax.transforms.line_search import line_search

LEAST_FEATURES = 32
SOLVERS = ("gauss-newton", "adam")


class Choice(NamedTuple):
    """Which parameters move.

    Attributes:
      layer: `"output"`, `"first"` or `"rest"`, for any other choice.
      paths: those of the parameters, keys joined by `/`.
    """

    layer: str
    paths: frozenset[str]


class Default(NamedTuple):
    """How a choice of parameters is moved unless told otherwise.

    Attributes:
      solver: one of `SOLVERS`.
      steps: how many.
      batch_size: latents of each side in a step.
      learning_rate: of Adam, in root mean squares of the weights.
    """

    solver: str
    steps: int
    batch_size: int
    learning_rate: float


DEFAULTS = {
    "output": Default("gauss-newton", 8, 256, 0.1),
    "first": Default("adam", 60, 128, 0.07),
    "rest": Default("adam", 150, 128, 0.02),
}


def choose_layer(model: VAE, params: Any, latents: int, trainable: str | None = None) -> Choice:
    """Chooses the parameters of a decoder that move, by what it computes.

    The output layer, those leaves in which the outputs are jointly affine, moves if it has at
    least 32 parameters for each value that the decoder draws: the objective is then convex. Else
    the first layer moves, through which the latents enter: a last 3x3 convolution is affine too,
    but with 300 parameters it draws nothing else. If neither is found, all of the decoder moves.

    Measured on VAEs of digits, 4,500 to train on, the forgotten class by a held-out classifier
    and the rise of −ELBO: dense, 6 latents, 64 features, a 4 (1.3 % before): output layer 0.1 %
    at +0.1 %, first layer 0.2 % at +2.5 %; 400 features (6.1 % before): 0.3 % at +2 % and 0.3 % at
    +2.7 %. Convolutional, 8 latents, a 7 (16 % before): first layer 1.3 % at +0.7 %, whole decoder
    4.1 % at +2.1 %.

    Args:
      model: the VAE.
      params: its parameters, trained.
      latents: K, how many it has.
      trainable: a regular expression searched for in a parameter's path, which chooses instead,
        among the parameters that the decoder uses.

    Returns:
      A `Choice`.

    Raises:
      ValueError: if `trainable` chooses nothing that the decoder uses, naming what it uses.

    Examples:
      >>> import jax.numpy as jnp
      >>> from uno_jax.generative.vae import VAE
      >>> from uno_jax.methods.redirect_vae import choose_layer
      >>> params = {"first": jnp.ones((2, 40)), "last": jnp.ones((40, 9)), "encoder": jnp.ones(3)}
      >>> decode = lambda p, z: jnp.tanh(z @ p["first"]) @ p["last"]
      >>> choose_layer(VAE(None, decode), params, 2).paths
      frozenset({'last'})
      >>> choose_layer(VAE(None, decode), params, 2, trainable="first").layer
      'first'
    """
    used = used_leaves(model.decode, params, latents)
    last = output_layer(model.decode, params, latents)
    first = first_layer(model.decode, params, latents)
    if trainable is not None:
        chosen = jax.tree_util.tree_leaves_with_path(subset.trainable(params, trainable).trainable)
        paths = frozenset(trees.path_name(path) for path, _ in chosen) & used
        if not paths:
            raise ValueError(
                f"trainable: expected {trainable!r} to choose parameters that decode uses, got "
                f"none of them; it uses {sorted(used)[:6]} ..."
            )
        layer = "output" if paths <= last else "first" if paths <= first else "rest"
        return Choice(layer, paths)
    sizes = {
        trees.path_name(path): np.size(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    latent = jax.ShapeDtypeStruct((1, latents), np.float32)
    values = jax.eval_shape(model.decode, params, latent).size
    if sum(sizes[path] for path in last) >= LEAST_FEATURES * values:
        return Choice("output", last)
    return Choice("first", first) if first else Choice("rest", used)


def redirect_vae(
    model: VAE,
    params: Any,
    retain: np.ndarray,
    forget: np.ndarray,
    *,
    trainable: str | None = None,
    targets: str | None = None,
    share: float = 0.005,
    anchor_weight: float = 1.0,
    steps: int | None = None,
    solver: str | None = None,
    batch_size: int | None = None,
    iterations: int = 20,
    damping: float = 0.1,
    learning_rate: float | None = None,
) -> Job:
    r"""Makes a decoder draw retained pictures where the forgotten ones lived.

    Minimises

    .. math:: \lambda\, E_{z \sim \text{retained}} \text{KL}(t(z) \,\|\, \text{decode}(z)) +
      E_{z \sim \text{forgotten}} \text{KL}(t(z) \,\|\, \text{decode}(z))

    with the targets t of `vae_redirect`, over the parameters of `choose_layer`. No classifier
    takes part.

    The output layer is moved by Gauss-Newton steps with a line search, since the objective is
    convex in it; any other choice by Adam, whose rate falls to 0 along a cosine and is in units
    of the root mean square of the weights that move. Measured on the models of `choose_layer`:
    through convolutions, 60 steps of Adam on 128 + 128 latents leave 1.3 % of a 7 at +0.7 % in
    3 s; 6 Gauss-Newton steps on 512 + 512 leave 1.4 % at +0.2 % in 69 s. In the output layer the
    two are alike, but where its features are badly conditioned, behind two layers of tanh,
    Gauss-Newton keeps more of the rest: −ELBO rises by 5 % instead of 10 %.

    Limits: a mean of retained pictures may look like a forgotten one. Of 3 and 8 in six latents
    (26 % before) 7 % are left, of a 9 (10 %) 3 %; a model trained without them draws 5.5 and
    5.3 %. Of a 9 amid 4s and 7s in two latents (26 %) 23 % are left, and retraining leaves 2.4 %.

    Args:
      model: the VAE.
      params: its parameters, a pytree of arrays, trained; neither changed nor donated.
      retain: (N, ...) float, examples to keep, as the encoder takes them.
      forget: (M, ...) float, examples to forget.
      trainable: a regular expression searched for in a parameter's path; by `choose_layer` if
        `None`. Parameters that the decoder does not use never move.
      targets: `"neighbours"` or `"shift"`; by `choose_targets` if `None`.
      share: of `"shift"`, the largest share of the forgotten that is left, in (0, 1); see
        `vae_redirect`.
      anchor_weight: λ, at least 0; smaller forgets more and keeps less.
      steps: how many; 8 of Gauss-Newton, 60 (150 for more than one layer) of Adam if `None`.
      solver: `"gauss-newton"` or `"adam"`; by the parameters that move if `None`.
      batch_size: latents of each side in a step, at least 2; of Gauss-Newton half of them are
        for the line search. 256 of Gauss-Newton, 128 of Adam if `None`.
      iterations: of conjugate gradients in a Gauss-Newton step.
      damping: of Gauss-Newton, in units of the curvature.
      learning_rate: of Adam, in root mean squares of the weights that move; 0.1 for the output
        layer, 0.07 for the first, 0.02 for anything else if `None`.

    Returns:
      A `Job`. The parameters that do not move travel in `TrainState.model_state`.

    Raises:
      ValueError: for a model, data or options that do not belong together, see `VAE.check`.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np
      >>> from uno_jax.generative.vae import VAE
      >>> from uno_jax.methods.redirect_vae import redirect_vae
      >>> encode = lambda params, x: (x @ params["in"], jnp.full((len(x), 2), -4.0))
      >>> decode = lambda params, z: jnp.tanh(z @ params["mix"]) @ params["out"]
      >>> vae = VAE(encode, decode, "gaussian")
      >>> rng = np.random.default_rng(0)
      >>> params = {"in": np.eye(4)[:, :2], "mix": rng.normal(size=(2, 99)),
      ...           "out": rng.normal(size=(99, 4))}
      >>> params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
      >>> retain, forget = (rng.normal(m, 0.3, (200, 4)).astype("f") for m in (-1, 1))
      >>> job = redirect_vae(vae, params, retain, forget, batch_size=64)
      >>> state = job.start(jax.random.key(0))
      >>> state, metrics = jax.jit(job.step)(state, *map(next, job.streams(0)))
      >>> bool(metrics["objective_after"] < metrics["objective"])
      True
      >>> [name for name in params if (job.finish(state)[name] != params[name]).any()]
      ['out']
    """
    retain, forget = (np.asarray(side) for side in (retain, forget))
    check_sides(retain, forget)
    model.check(params, retain)
    model.check(params, forget)
    latents = jax.eval_shape(model.encode, params, retain[:1])[0].shape[1]
    choice = choose_layer(model, params, latents, trainable)
    default = DEFAULTS[choice.layer]
    solver = default.solver if solver is None else solver
    if solver not in SOLVERS:
        raise ValueError(f"solver: expected one of {SOLVERS} or None, got {solver!r}.")
    # The default numbers belong to a solver: those of another layer that it moves, if need be.
    numbers = default if solver == default.solver else _numbers_of(solver, default)
    steps = numbers.steps if steps is None else steps
    batch_size = numbers.batch_size if batch_size is None else batch_size
    rate = default.learning_rate if learning_rate is None else learning_rate
    if steps < 1 or batch_size < 2:
        raise ValueError(
            f"expected steps of at least 1 and batch_size of at least 2, got {steps} and "
            f"{batch_size}."
        )
    retain_term, forget_term, streams = vae_redirect(
        model,
        params,
        retain,
        forget,
        targets=targets,
        share=share,
        anchor_weight=anchor_weight,
        batch_size=batch_size,
        count=min(COUNT, steps * batch_size),
    )
    parts = subset.trainable(params, lambda path, leaf: path in choice.paths)
    searches = solver == "gauss-newton"
    if searches:
        tx = optax.chain(
            scale_by_gauss_newton(damping, iterations=iterations),
            optax.scale(-1.0),
            line_search(),
        )
        cost = f"{batch_size} gradients, {iterations + 2} x {batch_size} products"
    else:
        rate *= _root_mean_square(parts.trainable)
        tx = optax.adam(optax.cosine_decay_schedule(rate, steps))
        cost = f"{2 * batch_size} gradients"
    where = f"{choice.layer} layer" if choice.layer != "rest" else "layers chosen"
    return Job(
        step=make_matching_step(retain_term, forget_term, tx, has_frozen=True, hold_out=searches),
        start=lambda key: create_state(parts.trainable, tx, key, model_state=parts.frozen),
        streams=streams,
        finish=lambda state: subset.join(state.params, state.model_state),
        steps=steps,
        cost=f"{cost} of single latents, for the decoder's {where}",
    )


def _numbers_of(solver: str, default: Default) -> Default:
    return next(other for other in DEFAULTS.values() if other.solver == solver)._replace(
        learning_rate=default.learning_rate
    )


def _root_mean_square(tree: Any) -> float:
    """Of all entries of the matrices and kernels of a tree; of all its entries if it has none."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    leaves = [leaf for leaf in leaves if leaf.ndim > 1] or leaves
    squares = sum(np.sum(leaf**2) for leaf in leaves)
    return float(np.sqrt(squares / sum(leaf.size for leaf in leaves)))
