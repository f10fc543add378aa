"""Which parameters of a decoder to move, found by probing the function, not by names."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uno_jax import trees

PROBES = 16  # latents that a probe decodes
SCALES = (1.0, 10.0)  # of a perturbation, in root mean squares of its leaf
LEAST_SPREAD = 0.1  # what a leaf of zeros counts as
COLLINEAR = 1e-3  # second difference over first difference, of a line in float32


def used_leaves(decode: Callable, params: Any, latents: int) -> frozenset[str]:
    """Returns the paths of the floating-point leaves that the decoder's outputs depend on.

    Args:
      decode: `decode(params, z) -> outputs`, z (N, K).
      params: all parameters.
      latents: K.

    Returns:
      Paths of `params`, keys joined by `/`; not those of an encoder.
    """
    return _trace(decode, params, latents).used


def output_layer(decode: Callable, params: Any, latents: int) -> frozenset[str]:
    r"""Finds the leaves in which, jointly, the decoder's outputs are affine.

    A leaf :math:`p` counts where the outputs at :math:`p - v`, :math:`p` and :math:`p + v` lie
    on one line,

    .. math:: |f(p + v) - 2 f(p) + f(p - v)| \le 10^{-3}\, |f(p + v) - f(p - v)|

    for random :math:`v` as large as the leaf and ten times as large: a network of ReLUs is
    affine along small steps. Leaves are tried from the largest down, each together with those
    already found, so that of a product of two parameters one is taken.

    Args:
      decode: `decode(params, z) -> outputs`, z (N, K).
      params: all parameters.
      latents: K.

    Returns:
      Paths of `params`; empty if the outputs are not affine in any leaf.

    Examples:
      >>> import jax.numpy as jnp
      >>> from uno_jax.redirect.layers import output_layer
      >>> params = {"first": jnp.eye(2), "last": jnp.ones((2, 5)), "bias": jnp.zeros(5)}
      >>> decode = lambda p, z: jnp.tanh(z @ p["first"]) @ p["last"] + p["bias"]
      >>> sorted(output_layer(decode, params, 2))
      ['bias', 'last']
    """
    used = used_leaves(decode, params, latents)
    flat, structure = jax.tree_util.tree_flatten_with_path(params)
    names = [trees.path_name(path) for path, _ in flat]
    leaves = [leaf for _, leaf in flat]
    z = jax.random.normal(jax.random.key(0), (PROBES, latents))

    @jax.jit
    def outputs(leaves):
        with jax.default_matmul_precision("highest"):
            return decode(jax.tree.unflatten(structure, leaves), z).astype(jnp.float32)

    here = np.asarray(outputs(leaves))

    def affine(chosen):
        for seed, scale in enumerate(SCALES):
            rng = np.random.default_rng(seed)
            ahead, behind = list(leaves), list(leaves)
            for i in chosen:
                leaf = np.asarray(leaves[i])
                spread = max(float(np.sqrt(np.mean(np.square(leaf, dtype=np.float64)))), 1e-30)
                spread = spread if spread > 1e-30 else LEAST_SPREAD
                step = (scale * spread * rng.normal(size=leaf.shape)).astype(leaf.dtype)
                ahead[i], behind[i] = leaf + step, leaf - step
            ahead, behind = np.asarray(outputs(ahead)), np.asarray(outputs(behind))
            first, second = ahead - behind, ahead - here + (behind - here)
            # Not finite counts as not affine.
            if not np.linalg.norm(second) <= COLLINEAR * np.linalg.norm(first):
                return False
        return True

    found: list[int] = []
    for i in sorted(range(len(leaves)), key=lambda i: -np.size(leaves[i])):
        if names[i] in used and affine([*found, i]):
            found.append(i)
    return frozenset(names[i] for i in found)


def first_layer(decode: Callable, params: Any, latents: int) -> frozenset[str]:
    """Finds the leaves through which the latents enter the decoder.

    They are the operands of the first matrix products and convolutions that latents take part
    in, on every path, and the bias added to each product. The decoder is traced, not run.

    Args:
      decode: `decode(params, z) -> outputs`, z (N, K).
      params: all parameters.
      latents: K.

    Returns:
      Paths of `params`; empty if no product of latents and parameters is found.

    Examples:
      >>> import jax.numpy as jnp
      >>> from uno_jax.redirect.layers import first_layer
      >>> params = {"first": jnp.eye(2), "bias": jnp.ones(2), "last": jnp.ones((2, 5))}
      >>> decode = lambda p, z: jnp.tanh(z @ p["first"] + p["bias"]) @ p["last"]
      >>> sorted(first_layer(decode, params, 2))
      ['bias', 'first']
    """
    return _trace(decode, params, latents).first


def _moves(leaf) -> bool:
    return jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)


class _Trace(NamedTuple):
    used: frozenset[str]
    first: frozenset[str]


class _Value(NamedTuple):
    """What a value of a traced program depends on.

    `leaves` are parameters. `stage` says how far the latents have come: "" for no latents,
    "latents" before their first product, "product" right behind it, "biased" behind its bias,
    "within" farther inside.
    """

    leaves: frozenset[int] = frozenset()
    stage: str = ""


_STAGES = ("", "latents", "product", "biased", "within")
_PRODUCTS = ("dot_general", "conv_general_dilated")
# What only arranges numbers leaves a product a product.
_ARRANGING = (
    "reshape", "transpose", "broadcast_in_dim", "squeeze", "expand_dims", "convert_element_type",
    "copy", "slice", "rev", "sharding_constraint",
)  # fmt: skip


def _trace(decode, params, latents) -> _Trace:
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    names = [trees.path_name(path) for path, _ in flat]
    z = jnp.zeros((PROBES, latents))
    program = jax.make_jaxpr(decode)(params, z)
    inputs = [_Value(frozenset([i])) for i in range(len(flat))] + [_Value(stage="latents")]
    first: set[int] = set()
    outputs = _walk(program.jaxpr, inputs, first)
    movable = {i for i, (_, leaf) in enumerate(flat) if _moves(leaf)}
    used = frozenset().union(*(value.leaves for value in outputs))
    return _Trace(
        frozenset(names[i] for i in used & movable), frozenset(names[i] for i in first & movable)
    )


def _walk(jaxpr, inputs, first) -> list[_Value]:
    """Follows values through a program; adds the leaves that meet the latents to `first`."""
    known = dict(zip(jaxpr.invars, inputs, strict=True))

    def value(atom):
        # Literals and constants depend on nothing.
        return _Value() if hasattr(atom, "val") else known.get(atom, _Value())

    for equation in jaxpr.eqns:
        arguments = [value(atom) for atom in equation.invars]
        inner = _inner(equation)
        if inner is not None:
            results = _walk(inner, arguments, first)
        else:
            results = [_apply(equation.primitive.name, arguments, first)] * len(equation.outvars)
        known.update(zip(equation.outvars, results, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _inner(equation):
    """The program that an equation calls with its own operands, as jit does; else None."""
    for program in equation.params.values():
        jaxpr = getattr(program, "jaxpr", program)
        if (
            hasattr(jaxpr, "eqns")
            and len(jaxpr.invars) == len(equation.invars)
            and len(jaxpr.outvars) == len(equation.outvars)
        ):
            return jaxpr
    return None


def _apply(name, arguments, first) -> _Value:
    leaves = frozenset().union(*(value.leaves for value in arguments))
    stage = max((value.stage for value in arguments), key=_STAGES.index, default="")
    parameters = frozenset().union(*(value.leaves for value in arguments if not value.stage))
    if stage == "latents" and parameters and name in _PRODUCTS:
        first |= parameters
        return _Value(leaves, "product")
    if stage == "product":
        if name in ("add", "add_any") and parameters:
            first |= parameters
            return _Value(leaves, "biased")
        if name not in _ARRANGING:
            return _Value(leaves, "within")
    return _Value(leaves, stage if stage in ("", "latents", "product") else "within")
