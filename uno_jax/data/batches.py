"""Endless shuffled batches through grain, deterministic in the seed."""

from collections.abc import Callable, Mapping

import grain
import numpy as np

from uno_jax.data.sources import Source


def array_batches(
    arrays: Mapping[str, np.ndarray],
    *,
    batch_size: int,
    seed: int,
    shard_index: int = 0,
    shard_count: int = 1,
) -> grain.DatasetIterator:
    """Streams batches of rows of several arrays, reshuffled every epoch, without end.

    Args:
      arrays: name to an array; all of one length along the first axis.
      batch_size: rows per batch and shard. May exceed the number of rows, then a
        batch repeats some.
      seed: decides the order; same seed, same batches.
      shard_index: which shard of the stream this process reads.
      shard_count: number of shards; each reads every `shard_count`-th row.

    Returns:
      A grain iterator over dicts of (B, ...) arrays, whose position is saved and
      restored with `get_state` and `set_state`.

    Raises:
      ValueError: if lengths differ, there is nothing to stream, or a size is out of
        range.
    """
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) != 1:
        raise ValueError(f"arrays: expected arrays of one length, got {sorted(lengths)}.")
    return stream(
        lambda rows: {name: array[rows] for name, array in arrays.items()},
        lengths.pop(),
        batch_size=batch_size,
        seed=seed,
        shard_index=shard_index,
        shard_count=shard_count,
    )


def batches(
    source: Source,
    indices: np.ndarray | None = None,
    *,
    batch_size: int,
    seed: int,
    shard_index: int = 0,
    shard_count: int = 1,
) -> grain.DatasetIterator:
    """Streams batches of images, reshuffled every epoch, without end.

    Args:
      source: the examples.
      indices: which of them, for example one side of a `Split`; all if `None`.
      batch_size: examples per batch and shard. May exceed the number of examples,
        then a batch repeats some.
      seed: decides the order; same seed, same batches.
      shard_index: which shard of the stream this process reads.
      shard_count: number of shards; each reads every `shard_count`-th example.

    Returns:
      A grain iterator over `{"image": (B, 784) float32 in [0, 1], "label": (B,)
      int32}`, whose position is saved and restored with `get_state` and
      `set_state`.

    Raises:
      ValueError: if there is nothing to stream, or a size is out of range.
    """
    chosen = np.arange(len(source.labels)) if indices is None else np.asarray(indices)

    def gather(positions: np.ndarray) -> dict[str, np.ndarray]:
        rows = chosen[positions]
        flat = source.images[rows].reshape(len(rows), -1)
        return {"image": flat.astype(np.float32) / 255.0, "label": source.labels[rows]}

    return stream(
        gather,
        len(chosen),
        batch_size=batch_size,
        seed=seed,
        shard_index=shard_index,
        shard_count=shard_count,
    )


def stream(
    gather: Callable[[np.ndarray], dict[str, np.ndarray]],
    length: int,
    *,
    batch_size: int,
    seed: int,
    shard_index: int,
    shard_count: int,
) -> grain.DatasetIterator:
    """Streams `gather(positions)` over shuffled positions, without end.

    Args:
      gather: from (B,) positions to a dict of (B, ...) arrays.
      length: number of positions.
      batch_size: positions per batch and shard.
      seed: decides the order.
      shard_index: which shard of the stream this process reads.
      shard_count: number of shards.

    Returns:
      A grain iterator.

    Raises:
      ValueError: if there is nothing to stream, or a size is out of range.
    """
    if not 0 <= shard_index < shard_count:
        raise ValueError(f"shard_index: expected 0 <= index < {shard_count}, got {shard_index}.")
    if batch_size < 1 or length < shard_count:
        raise ValueError(
            f"batches: expected a batch_size of at least 1 and at least {shard_count} examples, "
            f"got batch_size {batch_size} and {length} examples."
        )
    # Positions are batched before the images are looked up, so that grain moves
    # integers and numpy does the copying, once per batch.
    dataset = grain.MapDataset.range(length).shuffle(seed=seed).repeat()
    if shard_count > 1:
        dataset = dataset.slice(slice(shard_index, None, shard_count))
    dataset = dataset.batch(batch_size, drop_remainder=True).map(gather)
    # The arrays are in memory: a thread that reads 500 batches ahead only takes the
    # processor from the step.
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))
