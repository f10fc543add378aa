"""Endless batches of arrays in memory, the same for the same seed."""

import numpy as np

from uno_jax.training.examples import Batches


def endless_batches(arrays: dict[str, np.ndarray], *, batch_size: int, seed: int) -> Batches:
    """Makes shuffled batches without end.

    Each pass goes through all examples in a new order, and a batch may hold the end of one
    pass and the beginning of the next.

    Args:
      arrays: arrays with N examples along their first axis, N at least 1.
      batch_size: examples in a batch, at least 1; it may be larger than N.
      seed: of the orders; the same seed gives the same batches.

    Returns:
      `Batches` of dicts of arrays, `batch_size` examples each. Skipping takes no time.

    Raises:
      ValueError: if the arrays differ in length or are empty, or for `batch_size` < 1.

    Examples:
      >>> import numpy as np
      >>> from uno_jax.redirect.stream import endless_batches
      >>> batches = endless_batches({"a": np.arange(3)}, batch_size=2, seed=0)
      >>> drawn = np.concatenate([next(batches)["a"] for _ in range(3)])
      >>> sorted(drawn[:3].tolist()), sorted(drawn[3:].tolist())
      ([0, 1, 2], [0, 1, 2])
    """
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) != 1 or min(lengths) < 1:
        raise ValueError(
            f"arrays: expected arrays of one length of at least 1, got lengths {sorted(lengths)}."
        )
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}.")
    length = lengths.pop()

    def begin(position):
        while True:
            rows = _rows(position * batch_size, batch_size, length, seed)
            yield {name: array[rows] for name, array in arrays.items()}
            position += 1

    return Batches(begin)


def _rows(start, count, length, seed):
    """Rows `start` to `start + count` of the permutations of all passes, one behind another."""
    places = np.arange(start, start + count)
    orders = {
        number: np.random.default_rng((seed, number)).permutation(length)
        for number in range(start // length, (start + count - 1) // length + 1)
    }
    return np.array([orders[place // length][place % length] for place in places.tolist()])
