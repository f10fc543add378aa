"""The redirect of a variational autoencoder: what a part of its latent space shall draw."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from uno_jax.generative.vae import VAE
from uno_jax.losses.matching import Term, match
from uno_jax.redirect.neighbours import latent_redirect
from uno_jax.redirect.shift import latent_shift, shifted_latents
from uno_jax.redirect.stream import endless_batches

MOST_NEIGHBOUR_LATENTS = 10
TARGETS = ("neighbours", "shift")
PART = 500  # examples that pass through the original at once
COUNT = 4096  # latents on each side
MOST_BYTES = 2**28  # of targets on each side


class Posterior(NamedTuple):
    """The original encoder's view of all examples.

    Attributes:
      mean: (M, K) float32.
      log_variance: (M, K) float32.
      forget: (M,) bool, true for examples to forget.
    """

    mean: np.ndarray
    log_variance: np.ndarray
    forget: np.ndarray


def choose_targets(latents: int) -> str:
    """Returns how the targets are found for a number of latents: by neighbours or by the shift.

    Neighbours up to 10 latents. Measured on digits, forgotten class by a held-out classifier:
    at 6 and 8 latents neighbours leave 0.1 and 1 %, the shift 3.7 and 7 %; at 20 neighbours
    leave 0.3 % and the shift 1.1 %, but neighbours raise the Fréchet distance of the retained
    classes by half; at 128, faces, neighbours mean nothing.
    """
    return "neighbours" if latents <= MOST_NEIGHBOUR_LATENTS else "shift"


def vae_redirect(
    model: VAE,
    params: Any,
    retain: np.ndarray,
    forget: np.ndarray,
    *,
    targets: str | None = None,
    share: float = 0.005,
    anchor_weight: float = 1.0,
    batch_size: int = 512,
    count: int = COUNT,
) -> tuple[Term, Term, Callable]:
    r"""Says what a decoder would draw had it never seen the forgotten examples.

    Where a share c(z) of the posteriors near a latent z are forgotten examples', the original
    draws about :math:`c\, E_f[x | z] + (1 - c)\, E_r[x | z]`. The target t(z) is
    :math:`E_r[x | z]` there and the original's own picture wherever c vanishes:

    - `"neighbours"`: a mean of retained pictures, see `latent_redirect`;
    - `"shift"`: the original's picture at the latent shifted to where c is small, see
      `latent_shift`.

    Both terms are :math:`\text{KL}(t(z) \,\|\, \text{decode}(z))`, at latents of retained and of
    forgotten examples and of the prior. Targets are computed once, by the original.

    Args:
      model: the VAE.
      params: its parameters before forgetting, all of them; not kept by the terms.
      retain: (N, ...) float, examples to keep, as the encoder takes them.
      forget: (M, ...) float, examples to forget.
      targets: `"neighbours"`, `"shift"`, or by `choose_targets` if `None`.
      share: of `"shift"`, the largest share of the forgotten that is left, in (0, 1); smaller
        forgets more and changes more. Of a 4 in 20 latents (9.9 % before) 0.1, 0.02, 0.005 and
        0.002 leave 5.7, 2.9, 1.6 and 0.9 % while −ELBO rises by 0.4, 1.1, 2.3 and 3.8 %.
      anchor_weight: weight of the retain term, at least 0.
      batch_size: latents of each side in a batch.
      count: latents on each side, at most; there is no use in more than are looked at.

    Returns:
      `(retain_term, forget_term, streams)`: terms over all parameters and batches
      `{"latents", "targets"}`, (B, K) and (B, ...) float32, the targets as outputs of the
      decoder; `streams(seed) -> (retain_batches, forget_batches)`, endless, the same for the
      same seed.

    Raises:
      ValueError: for unknown targets, or images that do not belong together.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np
      >>> from uno_jax.generative.vae import VAE
      >>> from uno_jax.redirect.vae import vae_redirect
      >>> encode = lambda params, x: (x @ params["in"], jnp.full((len(x), 2), -4.0))
      >>> vae = VAE(encode, lambda params, z: z @ params["out"], "gaussian")
      >>> params = {"in": jnp.eye(4)[:, :2], "out": jnp.eye(4)[:2]}
      >>> rng = np.random.default_rng(0)
      >>> retain, forget = (rng.normal(m, 0.3, (200, 4)).astype("f") for m in (-1, 1))
      >>> keep, away, streams = vae_redirect(vae, params, retain, forget, batch_size=64)
      >>> batch = next(streams(0)[1])
      >>> batch["latents"].shape, batch["targets"].shape
      ((64, 2), (64, 4))
      >>> float(away.loss_fn(params, batch, None)) > 1.0
      True
    """
    retain, forget = (np.asarray(side) for side in (retain, forget))
    check_sides(retain, forget)
    posterior = encode_all(model, params, retain, forget)
    latents = posterior.mean.shape[1]
    if targets is None:
        targets = choose_targets(latents)
    if targets not in TARGETS:
        raise ValueError(f"targets: expected one of {TARGETS} or None, got {targets!r}.")
    shape = retain.shape[1:]
    count = max(2, min(count, MOST_BYTES // (4 * int(np.prod(shape)))))
    decode = jax.jit(lambda params, z: model.picture(model.decode(params, z)))
    outputs = jax.jit(model.decode)
    to_outputs = jax.jit(model.outputs)

    def neighbours(seed):
        images = np.concatenate([retain, forget]).reshape(len(posterior.forget), -1)
        found = latent_redirect(
            posterior.mean,
            posterior.log_variance,
            images,
            posterior.forget,
            lambda z: _in_parts(lambda part: decode(params, part), z).reshape(len(z), -1),
            seed=seed,
            count=count,
        )
        for side in (found.retain, found.forget):
            pictures = _in_parts(to_outputs, side["targets"]).reshape(-1, *shape)
            yield {"latents": side["latents"], "targets": pictures}

    def shift(seed):
        moved = latent_shift(*posterior, share=share)
        for side in shifted_latents(moved, *posterior, seed=seed, count=count):
            drawn = _in_parts(lambda part: outputs(params, part), side["shifted"])
            yield {"latents": side["latents"], "targets": drawn}

    def streams(seed):
        sides = {"neighbours": neighbours, "shift": shift}[targets](seed)
        return tuple(
            endless_batches(side, batch_size=batch_size, seed=seed + offset)
            for offset, side in enumerate(sides)
        )

    def outputs_fn(params, batch, key):
        del key
        return model.decode(params, batch["latents"])

    def target_fn(batch, key):
        del key
        return batch["targets"]

    family = model.family
    return (
        match(outputs_fn, target_fn, family, weight=anchor_weight),
        match(outputs_fn, target_fn, family),
        streams,
    )


def check_sides(retain: np.ndarray, forget: np.ndarray) -> None:
    """Checks that both sides hold images of one shape.

    Raises:
      ValueError: if one is empty, or the shapes differ.
    """
    if (
        retain.ndim < 2
        or retain.shape[1:] != forget.shape[1:]
        or not len(retain)
        or not len(forget)
    ):
        raise ValueError(
            "retain and forget: expected images (N, ...) and (M, ...) of one shape, at least one "
            f"each, got {retain.shape} and {forget.shape}."
        )


def encode_all(model: VAE, params: Any, retain: np.ndarray, forget: np.ndarray) -> Posterior:
    """Encodes all examples with the original encoder, retained ones first."""
    encode = jax.jit(model.encode)
    sides = []
    for images in (retain, forget):
        parts = [encode(params, part) for part in _parts(images)]
        sides.append([np.concatenate(side)[: len(images)] for side in zip(*parts, strict=True)])
    mean, log_variance = (np.concatenate(both) for both in zip(*sides, strict=True))
    return Posterior(mean, log_variance, np.arange(len(mean)) >= len(retain))


def _parts(rows):
    """Parts of one size, so that one program serves all; the last is filled with zeros."""
    for start in range(0, len(rows), PART):
        part = rows[start : start + PART]
        lacking = PART - len(part)
        yield np.pad(part, [(0, lacking)] + [(0, 0)] * (part.ndim - 1)) if lacking else part


def _in_parts(function, rows) -> np.ndarray:
    """A function of examples, applied to some at once: (N, ...) to (N, ...) float32."""
    results = [np.asarray(function(part), np.float32) for part in _parts(rows)]
    return np.concatenate(results)[: len(rows)]
