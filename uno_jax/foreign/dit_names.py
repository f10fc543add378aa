"""Where the weights of published diffusion transformers go in our module."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from uno_jax.foreign.torch_layouts import Entry, Layout, from_torch, layer


def patches(channels: int) -> Layout:
    """A convolution (out, in, P, P) of stride P to a product (P P in, out), channels last."""

    def to_flax(weight):
        return weight.transpose(2, 3, 1, 0).reshape(-1, len(weight))

    def to_torch(kernel):
        side = math.isqrt(len(kernel) // channels)
        return kernel.reshape(side, side, channels, -1).transpose(3, 2, 0, 1)

    return Layout(to_flax, to_torch)


ORIGINAL_IGNORED = ("pos_embed",)
"""The fixed sine and cosine table, which `uno_jax.models.DiT` computes."""


def dit_original(depth: int = 28, channels: int = 4) -> tuple[Entry, ...]:
    """Entries for `uno_jax.models.DiT` from the published code's names.

    Args:
      depth: number of blocks.
      channels: of the input, 4 for Stable-Diffusion latents.

    Returns:
      Entries for `from_torch`.
    """
    entries = [
        *layer("x_embedder.proj", ("patch",), patches(channels)),
        *layer("t_embedder.mlp.0", ("time", "hidden")),
        *layer("t_embedder.mlp.2", ("time", "out")),
        Entry("y_embedder.embedding_table.weight", "params", ("label", "table")),
        *layer("final_layer.linear", ("output", "linear")),
        *layer("final_layer.adaLN_modulation.1", ("output", "modulation")),
    ]
    for i in range(depth):
        for theirs, ours in (
            ("attn.qkv", "qkv"),
            ("attn.proj", "projection"),
            ("mlp.fc1", "mlp_in"),
            ("mlp.fc2", "mlp_out"),
            ("adaLN_modulation.1", "modulation"),
        ):
            entries += layer(f"blocks.{i}.{theirs}", (f"block_{i}", ours))
    return tuple(entries)


def original_from_diffusers(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames a DiT in the layout of diffusers to the published code's names.

    There queries, keys and values are three layers, and every block has a copy of the
    embeddings of time and label.

    Args:
      arrays: state dict of a `DiTTransformer2DModel`, or a `Transformer2DModel` with
        `norm_type="ada_norm_zero"`.

    Returns:
      Arrays by the names of `dit_original`.

    Raises:
      ValueError: if an array is missing, a block's copy differs from the first block's,
        or one is left over, naming it.
    """
    left = dict(arrays)
    result: dict[str, np.ndarray] = {}

    def take(name: str) -> np.ndarray:
        if name not in left:
            raise ValueError(f"weights: missing {name!r} of the diffusers layout.")
        return np.asarray(left.pop(name))

    def move(theirs: str, ours: str) -> None:
        for end in ("weight", "bias"):
            result[f"{ours}.{end}"] = take(f"{theirs}.{end}")

    def move_copy(theirs: str, ours: str) -> None:
        array = take(theirs)
        if not np.array_equal(result.setdefault(ours, array), array):
            raise ValueError(f"weights: expected {theirs!r} to equal that of the first block.")

    move("pos_embed.proj", "x_embedder.proj")
    left.pop("pos_embed.pos_embed", None)
    block = 0
    while any(name.startswith(f"transformer_blocks.{block}.") for name in left):
        theirs, ours = f"transformer_blocks.{block}", f"blocks.{block}"
        for end in ("weight", "bias"):
            parts = [take(f"{theirs}.attn1.to_{part}.{end}") for part in "qkv"]
            result[f"{ours}.attn.qkv.{end}"] = np.concatenate(parts)
        move(f"{theirs}.attn1.to_out.0", f"{ours}.attn.proj")
        move(f"{theirs}.ff.net.0.proj", f"{ours}.mlp.fc1")
        move(f"{theirs}.ff.net.2", f"{ours}.mlp.fc2")
        move(f"{theirs}.norm1.linear", f"{ours}.adaLN_modulation.1")
        for end in ("weight", "bias"):
            for number, layer_number in ((1, 0), (2, 2)):
                move_copy(
                    f"{theirs}.norm1.emb.timestep_embedder.linear_{number}.{end}",
                    f"t_embedder.mlp.{layer_number}.{end}",
                )
        move_copy(
            f"{theirs}.norm1.emb.class_embedder.embedding_table.weight",
            "y_embedder.embedding_table.weight",
        )
        block += 1
    # Both keep shift, then scale.
    move("proj_out_1", "final_layer.adaLN_modulation.1")
    move("proj_out_2", "final_layer.linear")
    if left:
        raise ValueError(f"weights: not expected {sorted(left)} in the diffusers layout.")
    return result


def dit_variables(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Builds the variables of `uno_jax.models.DiT` from published weights, either layout.

    Depth and channels follow from the arrays.

    Args:
      arrays: state dict of the published code (`blocks.0.attn.qkv.weight`, ...) or of
        diffusers (`transformer_blocks.0.attn1.to_q.weight`, ...), for example from
        `read_arrays`.

    Returns:
      `{"params": ...}`, arrays in the dtype they came in. The table of labels has one row
      more than there are classes: the null label.

    Raises:
      ValueError: as `from_torch` and `original_from_diffusers`.

    References:
      Peebles and Xie, arXiv 2212.09748.
    """
    if any(name.startswith("transformer_blocks.") for name in arrays):
        arrays = original_from_diffusers(arrays)
    depth = len({name.split(".")[1] for name in arrays if name.startswith("blocks.")})
    patch = arrays.get("x_embedder.proj.weight")
    channels = 4 if patch is None else patch.shape[1]
    return from_torch(arrays, dit_original(depth, channels), ignore=ORIGINAL_IGNORED)
