"""The diffusion transformer, DiT, with adaLN-Zero."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from uno_jax.models.embeddings import LabelEmbedding, TimeEmbedding, positions

DIT_SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}
"""Depth, width and heads by the published names."""
BLOCK, STACKED = "block_", "blocks"


def modulate(x: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
    """Returns `x (1 + scale) + shift`, one shift and scale per example for all tokens."""
    return x * (1.0 + scale[:, None]) + shift[:, None]


def _norm(x: jax.Array, dtype: Any) -> jax.Array:
    """Layer norm without parameters, reduced in float32."""
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(centred**2, axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + 1e-6)).astype(dtype)


class DiTBlock(nn.Module):
    """Attention and a perceptron, each shifted, scaled and gated by the condition.

    Attributes:
      width: of a token.
      heads: of the attention.
      mlp_ratio: hidden width of the perceptron in widths.
      dtype: of the computation; norms, attention weights and sums are float32.
    """

    width: int
    heads: int
    mlp_ratio: float = 4.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        """Maps (N, L, width) tokens and (N, width) conditions to tokens."""
        dense = _dense(self.dtype)
        modulation = nn.Dense(
            6 * self.width, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="modulation"
        )(nn.silu(condition))
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = jnp.split(modulation, 6, axis=-1)

        y = modulate(_norm(x, self.dtype), shift, scale)
        batch, length, _ = y.shape
        heads = dense(3 * self.width, name="qkv")(y).reshape(batch, length, 3, self.heads, -1)
        # Logits and softmax are float32 in there, whatever the dtype.
        mixed = jax.nn.dot_product_attention(heads[:, :, 0], heads[:, :, 1], heads[:, :, 2])
        mixed = dense(self.width, name="projection")(mixed.reshape(batch, length, -1))
        x = x + gate[:, None] * mixed

        y = modulate(_norm(x, self.dtype), shift_mlp, scale_mlp)
        y = dense(int(self.width * self.mlp_ratio), name="mlp_in")(y)
        y = dense(self.width, name="mlp_out")(nn.gelu(y, approximate=True))
        return x + gate_mlp[:, None] * y


class DiTOutput(nn.Module):
    """From tokens to the pixels of their patches.

    Attributes:
      width: of a token.
      outputs: numbers per patch.
      dtype: of the computation.
    """

    width: int
    outputs: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        """Maps (N, L, width) tokens to (N, L, outputs), float32."""
        zeros = nn.initializers.zeros
        modulation = nn.Dense(
            2 * self.width, kernel_init=zeros, dtype=self.dtype, name="modulation"
        )(nn.silu(condition))
        x = modulate(_norm(x, self.dtype), *jnp.split(modulation, 2, axis=-1))
        return nn.Dense(self.outputs, kernel_init=zeros, name="linear")(x.astype(jnp.float32))


class DiT(nn.Module):
    """A transformer over patches, conditioned on time and label by adaptive layer norm.

    At the start every block is the identity and the output is zero.

    Attributes:
      patch: side of a patch.
      depth: number of blocks.
      width: of a token.
      heads: of the attention.
      classes: number of labels; label `classes` stands for none.
      mlp_ratio: hidden width of the perceptrons in widths.
      learned_variance: whether there are twice the channels in the output.
      dtype: of the computation; parameters are float32.
      remat: whether a block's inside is computed again in the backward pass.
      scan: whether the blocks are one loop: compiled once for all, the surer way to the
        memory that `remat` promises. Without `remat` it keeps the products of matrices and
        computes the rest again. Gradients of frozen blocks are then computed too, and
        parameters are copied into one array for the loop, unless they already are, see
        `stack_blocks`.

    References:
      Peebles and Xie, Scalable diffusion models with transformers, arXiv 2212.09748.
    """

    patch: int = 4
    depth: int = 4
    width: int = 128
    heads: int = 4
    classes: int = 10
    mlp_ratio: float = 4.0
    learned_variance: bool = False
    dtype: Any = jnp.float32
    remat: bool = False
    scan: bool = False

    @property
    def null_label(self) -> int:
        """The label that stands for none."""
        return self.classes

    @nn.compact
    def __call__(self, noisy: jax.Array, times: jax.Array, labels: jax.Array) -> jax.Array:
        """Maps (N, H, W, C) images, (N,) times and (N,) labels to (N, H, W, C or 2C)."""
        batch, height, width, channels = noisy.shape
        p = self.patch
        if height % p or width % p:
            raise ValueError(f"DiT: expected sides that {p} divides, got {height}x{width}.")
        rows, columns = height // p, width // p
        x = noisy.reshape(batch, rows, p, columns, p, channels).swapaxes(2, 3)
        x = _dense(self.dtype)(self.width, name="patch")(x.reshape(batch, rows * columns, -1))
        x = x + positions(self.width, rows, columns).astype(self.dtype)
        condition = TimeEmbedding(self.width, name="time")(times)
        condition = condition + LabelEmbedding(self.classes + 1, self.width, name="label")(labels)
        condition = condition.astype(self.dtype)

        if self.scan and not self.is_initializing():
            x = self._loop(x, condition)
        else:
            block = nn.remat(DiTBlock) if self.remat else DiTBlock
            for i in range(self.depth):
                x = block(*self._block_sizes(), name=f"block_{i}")(x, condition)
        channels *= 2 if self.learned_variance else 1
        x = DiTOutput(self.width, p * p * channels, self.dtype, name="output")(x, condition)
        x = x.reshape(batch, rows, columns, p, p, channels).swapaxes(2, 3)
        return x.reshape(batch, height, width, channels)

    def _block_sizes(self):
        return self.width, self.heads, self.mlp_ratio, self.dtype

    def _loop(self, x, condition):
        """The blocks as one scan over their parameters, which keep their own names."""
        block = DiTBlock(*self._block_sizes(), parent=None)

        def body(x, params):
            return block.apply({"params": params}, x, condition), None

        # What a loop keeps is written out and read again, every intermediate of a block: without
        # `remat` too it is quicker to keep the products of matrices alone. Passes it keeps apart
        # by itself.
        policy = None if self.remat else jax.checkpoint_policies.dots_saveable
        body = jax.checkpoint(body, prevent_cse=False, policy=policy)
        params = self.variables["params"]
        params = params if STACKED in params else stack_blocks(params)
        return jax.lax.scan(body, x, params[STACKED])[0]


def stack_blocks(params: Mapping[str, Any]) -> dict[str, Any]:
    """Puts the parameters of all blocks of a DiT into one array each, for `scan=True`.

    A step then has a few arrays to compile for and to communicate, not hundreds, and the
    loop needs no copy of them. Trainable subsets by block number need the blocks apart.

    Args:
      params: of a DiT; `block_0`, `block_1`, ... beside others.

    Returns:
      The same with `blocks`, whose arrays have the block as their first axis, instead.

    Examples:
      >>> import jax.numpy as jnp
      >>> from uno_jax import models
      >>> models.stack_blocks({"block_0": {"a": jnp.ones(3)}, "block_1": {"a": jnp.ones(3)}})[
      ...     "blocks"]["a"].shape
      (2, 3)
    """
    depth = sum(name.startswith(BLOCK) for name in params)
    blocks = [params[f"{BLOCK}{i}"] for i in range(depth)]
    others = {name: value for name, value in params.items() if not name.startswith(BLOCK)}
    return {**others, STACKED: jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)}


def unstack_blocks(params: Mapping[str, Any]) -> dict[str, Any]:
    """The way back from `stack_blocks`."""
    blocks = params[STACKED]
    apart = {
        f"{BLOCK}{i}": jax.tree.map(lambda leaf, i=i: leaf[i], blocks)
        for i in range(len(jax.tree.leaves(blocks)[0]))
    }
    return {**{name: value for name, value in params.items() if name != STACKED}, **apart}


def _rows_dot_general(x, kernel, dimension_numbers, precision=None, **options):
    # As one matrix of all tokens: XLA's CPU backend takes half the time for its gradient.
    del dimension_numbers
    rows = x.reshape(-1, x.shape[-1])
    y = jax.lax.dot_general(rows, kernel, (((1,), (0,)), ((), ())), precision, **options)
    return y.reshape(*x.shape[:-1], -1)


def _dense(dtype):
    def make(features, name):
        return nn.Dense(
            features,
            kernel_init=nn.initializers.xavier_uniform(),
            dtype=dtype,
            dot_general=_rows_dot_general,
            name=name,
        )

    return make


def dit(name: str, **changes: Any) -> DiT:
    """A DiT of a published size.

    Args:
      name: size and side of a patch, such as `"S/4"` or `"XL/2"`; sizes S, B, L and XL,
        patches 2, 4 and 8.
      **changes: attributes of `DiT`; published are `classes=1000` and
        `learned_variance=True`, which are the default here.

    Returns:
      The module.

    Raises:
      ValueError: for another name.

    Examples:
      >>> from uno_jax import models
      >>> model = models.dit("XL/2")
      >>> model.depth, model.width, model.patch
      (28, 1152, 2)
    """
    size, _, patch = name.partition("/")
    if size not in DIT_SIZES or patch not in ("2", "4", "8"):
        raise ValueError(f"dit: expected a size of {sorted(DIT_SIZES)} / 2, 4 or 8, got {name!r}.")
    depth, width, heads = DIT_SIZES[size]
    published = {"classes": 1000, "learned_variance": True}
    return DiT(
        **{
            "patch": int(patch),
            "depth": depth,
            "width": width,
            "heads": heads,
            **published,
            **changes,
        }
    )


def parameter_count(params: Any) -> int:
    """Number of parameters, of arrays or of their shapes."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
