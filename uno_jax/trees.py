"""Pytree arithmetic that a gradient projection relies on.

Dot products and norms are taken over a whole tree as one vector, reduced in
at least float32 whatever the dtype of the leaves. Structure and shapes are
checked before any arithmetic, because multiplication broadcasts silently.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any
SMALL = 4096


def path_name(path: tuple) -> str:
    """The keys of a path of `jax.tree_util` joined by `/`, such as `"block_3/kernel"`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def on_host(leaves: list) -> bool:
    """Whether all are JAX arrays that numpy reaches in place: on CPUs, of this process."""
    return all(
        isinstance(leaf, jax.Array)
        and leaf.is_fully_addressable
        and all(device.platform == "cpu" for device in leaf.devices())
        for leaf in leaves
    )


def _is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def _is_leaf(node: Any) -> bool:
    # None and MaskedNode are empty containers to jax.tree; here they are places
    # that must agree between two trees, so that an error can name them.
    return node is None or _is_masked(node)


def _describe(leaf: Any) -> str:
    if leaf is None:
        return "None"
    if _is_masked(leaf):
        return "MaskedNode"
    return f"shape {tuple(jnp.shape(leaf))}"


def check_same_structure(
    tree: PyTree, reference: PyTree, *, tree_name: str, reference_name: str
) -> None:
    """Raises unless two trees have the same paths and the same leaf shapes.

    None leaves and masked nodes must stand in the same places.

    Args:
      tree: any pytree.
      reference: the pytree to compare with.
      tree_name: what to call `tree` in the message.
      reference_name: what to call `reference` in the message.

    Raises:
      ValueError: naming the first path at which the trees differ, what was
        expected there (from `reference`) and what was got.
    """
    with_path = jax.tree_util.tree_flatten_with_path
    got, got_def = with_path(tree, is_leaf=_is_leaf)
    expected, expected_def = with_path(reference, is_leaf=_is_leaf)
    got_map = {jax.tree_util.keystr(p): leaf for p, leaf in got}
    expected_map = {jax.tree_util.keystr(p): leaf for p, leaf in expected}
    where = f"{tree_name} does not match {reference_name} at "
    for path, leaf in expected_map.items():
        if path not in got_map:
            raise ValueError(f"{where}'{path}': expected {_describe(leaf)}, got nothing there.")
        if _describe(got_map[path]) != _describe(leaf):
            raise ValueError(
                f"{where}'{path}': expected {_describe(leaf)}, got {_describe(got_map[path])}."
            )
    for path, leaf in got_map.items():
        if path not in expected_map:
            raise ValueError(f"{where}'{path}': expected nothing there, got {_describe(leaf)}.")
    if got_def != expected_def:
        raise ValueError(f"{where}the root: expected {expected_def}, got {got_def}.")


def restrict(tree: PyTree, like: PyTree) -> PyTree:
    """Puts an `optax.MaskedNode` into `tree` wherever `like` has one.

    `optax.masked` hides nodes of the updates and of the parameters, but not of
    a tree fixed at construction or returned by a function; this hides the same
    nodes there.

    Args:
      tree: any pytree.
      like: the same pytree, with some subtrees replaced by `MaskedNode`.

    Returns:
      `tree` with the masked places of `like` masked. Trees whose structures
      differ otherwise are returned as they are, for a check to name the place.
    """
    if not any(map(_is_masked, jax.tree.leaves(like, is_leaf=_is_masked))):
        return tree
    try:
        return jax.tree.map(
            lambda hide, sub: hide if _is_masked(hide) else sub, like, tree, is_leaf=_is_leaf
        )
    except ValueError:
        return tree


def aligned(tree: PyTree, reference: PyTree, *, tree_name: str, reference_name: str) -> PyTree:
    """Returns `tree` masked where `reference` is, checked to match it.

    Args:
      tree: any pytree.
      reference: the pytree to match, with or without masked nodes.
      tree_name: what to call `tree` in a message.
      reference_name: what to call `reference` in a message.

    Returns:
      `restrict(tree, reference)`.

    Raises:
      ValueError: as `check_same_structure` does.
    """
    tree = restrict(tree, reference)
    check_same_structure(tree, reference, tree_name=tree_name, reference_name=reference_name)
    return tree


def fill_masked(tree: PyTree, source: PyTree) -> PyTree:
    """Replaces each `optax.MaskedNode` in `tree` by what `source` holds there.

    Args:
      tree: a pytree in which some subtrees are `MaskedNode`.
      source: the same pytree without masked nodes.

    Returns:
      The completed tree: values from `tree` where it has any, else `source`.
    """
    return jax.tree.map(
        lambda node, sub: sub if _is_masked(node) else node, tree, source, is_leaf=_is_leaf
    )


def accept_masked(grad_fn: Callable, params: PyTree) -> Callable:
    """Makes a gradient function accept parameters with masked nodes.

    `optax.masked` hands the inner transformation parameters in which frozen
    nodes are `optax.MaskedNode`; the loss still needs their values.

    Args:
      grad_fn: a function from complete parameters to their gradient.
      params: the complete parameters, the source of the frozen values.

    Returns:
      A function from parameters, complete or masked, to the gradient, masked in
      the same places.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> import uno_jax as uno
      >>> params = {"a": jnp.array(2.0), "b": jnp.array(3.0)}
      >>> grad_fn = uno.training.accept_masked(jax.grad(lambda p: p["a"] * p["b"]), params)
      >>> grad_fn({"a": jnp.array(2.0), "b": optax.MaskedNode()})
      {'a': Array(3., dtype=float32, weak_type=True), 'b': MaskedNode()}
    """

    def masked_grad_fn(visible):
        grads = grad_fn(fill_masked(visible, params))
        return restrict(grads, visible)

    return masked_grad_fn


def _wide(leaf: jax.Array) -> jax.Array:
    leaf = jnp.asarray(leaf)
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))


def widen(tree: PyTree) -> PyTree:
    """Returns `tree` in float32 (float64 leaves stay)."""
    return jax.tree.map(_wide, tree)


def dot(a: PyTree, b: PyTree) -> jax.Array:
    """Returns the dot product of two trees as one vector each, in float32.

    Args:
      a: pytree of real arrays; None and masked nodes count as nothing.
      b: pytree of the same structure and shapes.

    Returns:
      A scalar, float32 (float64 if a leaf is float64); 0 for an empty tree.
    """
    # Paired before they are joined: joined, leaves of other shapes would fit too.
    pairs = jax.tree.map(lambda x, y: jnp.broadcast_arrays(_wide(x), _wide(y)), a, b)
    leaves = jax.tree.leaves(pairs)
    joined = zip(_packed(leaves[::2]), _packed(leaves[1::2]), strict=True)
    return _total([jnp.sum(x * y) for x, y in joined])


def _packed(leaves: list[jax.Array]) -> list[jax.Array]:
    """The same numbers in fewer arrays, those of up to `SMALL` in one.

    A reduction is a program to compile, and most leaves of a network are small: of a U-Net,
    95 of 129. What is split by type (explicit sharding) cannot be joined.
    """
    large, small = [], []
    for leaf in leaves:
        joins = leaf.size <= SMALL and not any(jax.typeof(leaf).sharding.spec)
        (small if joins else large).append(leaf)
    return [*large, jnp.concatenate([*map(jnp.ravel, small)])] if small else large


def _total(scalars: list[jax.Array]) -> jax.Array:
    """The sum of scalars; 0 for none."""
    return _once(jnp.sum(jnp.stack(scalars))) if scalars else jnp.zeros((), jnp.float32)


def _once(scalar: jax.Array) -> jax.Array:
    """The same finite scalar, computed once.

    XLA would copy a sum over all leaves into each leaf's operations that use it, and with
    its own time the compiler's would grow with the square of the number of leaves. It does not
    copy what it holds for expensive, as a remainder: here that of a division by infinity.
    """
    return jax.lax.rem(scalar, jnp.full_like(scalar, jnp.inf))


class Direction(NamedTuple):
    """A tree as unit vector and length, `tree = norm * unit`.

    Attributes:
      unit: pytree of float32 leaves with norm 1, or all zeros for a zero tree.
      norm: scalar, the Euclidean norm over all leaves.
    """

    unit: PyTree
    norm: jax.Array


def direction(tree: PyTree) -> Direction:
    """Splits a tree into its unit vector and its norm.

    The largest magnitude is divided out first, so that neither the squares of
    very small gradients underflow nor those of summed losses overflow.

    Args:
      tree: pytree of real arrays.

    Returns:
      A `Direction`; for a zero or empty tree the unit vector is zero. Where a leaf is not
      finite, neither is the norm.
    """
    wide = widen(tree)
    leaves = _packed([leaf for leaf in jax.tree.leaves(wide) if leaf.size])
    if not leaves:
        return Direction(wide, jnp.zeros((), jnp.float32))
    largest = _once(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in leaves]).max())
    # Below the smallest normal number nothing can be divided out; such a tree is zero.
    # What is not finite is neither: it stays so in the norm and in the unit vector.
    nonzero = ~(largest < jnp.finfo(largest.dtype).tiny)
    scale = jnp.where(nonzero, largest, 1.0)
    squares = [jnp.sum((leaf / scale) ** 2) for leaf in leaves]
    length = jnp.where(nonzero, jnp.sqrt(_total(squares)), 0.0)
    safe_length = jnp.where(nonzero, length, 1.0)
    unit = jax.tree.map(lambda leaf: jnp.where(nonzero, leaf / scale / safe_length, 0.0), wide)
    return Direction(unit, length * scale)


def add_scaled(tree: PyTree, scale: jax.Array, other: PyTree) -> PyTree:
    """Returns `tree + scale * other`, summed in float32, in the dtypes of `tree`.

    Args:
      tree: pytree of real arrays.
      scale: scalar.
      other: pytree of the same structure and shapes.

    Returns:
      A pytree like `tree`.
    """

    def leaf(a, b):
        a = jnp.asarray(a)
        return (_wide(a) + scale * _wide(b)).astype(a.dtype)

    return jax.tree.map(leaf, tree, other)


def combine(a: jax.Array, left: PyTree, b: jax.Array, right: PyTree) -> PyTree:
    """Returns `a * left + b * right` in float32, for scalars `a` and `b`."""
    return jax.tree.map(lambda x, y: a * _wide(x) + b * _wide(y), left, right)


def cast_like(tree: PyTree, like: PyTree) -> PyTree:
    """Returns `tree` with the dtypes of the leaves of `like`."""
    return jax.tree.map(lambda a, b: a.astype(jnp.asarray(b).dtype), tree, like)
