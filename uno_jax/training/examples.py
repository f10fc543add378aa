"""The examples on one side, as a user hands them over, and endless batches of them."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from uno_jax.training.digest import add_array

KEYS = ("image", "label")
OTHER = "other"
"""The name, in a batch of `Examples.paired`, of the label that an example is paired with."""
CHUNK = 4096
"""Rows that are looked at together, where all are."""
SHAPES = "an array (N, ...), a dict of arrays ('image', perhaps 'label'), or batches of these"


class Batches:
    """An endless iterator of batches that can pass over some.

    Attributes:
      position: batches passed or given so far.
    """

    def __init__(self, begin: Callable[[int], Iterator[dict]]):
        """`begin(k)` returns an iterator that starts at batch k."""
        self._begin = begin
        self._running: Iterator[dict] | None = None
        self.position = 0

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> dict:
        if self._running is None:
            self._running = self._begin(self.position)
        self.position += 1
        return next(self._running)

    def skip(self, count: int) -> None:
        """Passes over so many batches."""
        self.position += count
        self._running = None

    def map(self, fn: Callable[[dict], dict]) -> "Batches":
        """The same with a function of each batch."""
        return Batches(lambda position: map(fn, self._begin(position)))


def joined(batches: Batches, **others: Batches) -> Batches:
    """Batches that hold, beside their own entries, the batches of others under a name."""

    def begin(position):
        streams = {name: other._begin(position) for name, other in others.items()}
        for batch in batches._begin(position):
            yield {**batch, **{name: next(stream) for name, stream in streams.items()}}

    return Batches(begin)


class Examples:
    """The examples of one side: in memory, or in batches that are read again for each pass.

    Made by `read_examples`, which checks them.

    Attributes:
      side: what to call them in messages, such as `"retain"`.
      keys: the names of the arrays.
      shape: of one image.
      count: how many examples there are.
      labels: from label to the number of its examples; empty without labels.
    """

    def __init__(self, side: str, passes: Callable[[], Iterator[dict]], arrays: dict | None):
        """`passes()` begins a pass over batches; `arrays` if all are in memory."""
        self.side = side
        self._passes = passes
        self._arrays = arrays
        self.keys: tuple[str, ...] = ()
        self.shape: tuple[int, ...] = ()
        self.count = 0
        self.labels: dict[int, int] = {}
        self._look_through()

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All of them in memory; examples that come in batches are collected."""
        if self._arrays is not None:
            return self._arrays
        parts = list(self._passes())
        return {key: np.concatenate([part[key] for part in parts]) for key in self.keys}

    def first(self, count: int) -> dict[str, np.ndarray]:
        """The first examples, at most so many."""
        part = next(self._passes())
        return {key: value[:count] for key, value in part.items()}

    def means(self) -> dict[int, np.ndarray]:
        """From label to the mean image of its examples, float64."""
        sums: dict[int, Any] = dict.fromkeys(self.labels, 0.0)
        for part in self._passes():
            for label in np.unique(part["label"]):
                chosen = part["image"][part["label"] == label]
                sums[int(label)] = sums[int(label)] + chosen.sum(0, dtype=np.float64)
        return {label: sums[label] / self.labels[label] for label in sums}

    def fingerprint(self) -> str:
        """A hash of all examples in their order, 16 hexadecimal digits."""
        hashers = {key: hashlib.sha256() for key in self.keys}
        for part in self._passes():
            for key, hasher in hashers.items():
                add_array(hasher, key, part[key])
        joined = "".join(f"{key} {hasher.hexdigest()}" for key, hasher in sorted(hashers.items()))
        return hashlib.sha256(joined.encode()).hexdigest()[:16]

    def batches(self, batch_size: int, seed: int) -> Batches:
        """Endless batches, the same for the same seed.

        What is in memory is shuffled anew for each pass, and passing over batches takes no
        time. What comes in batches keeps the order that it comes in, whatever the seed, and is
        cut anew; to pass over it is to read it.

        Args:
          batch_size: examples per batch, at least 1. It may exceed the number of examples.
          seed: decides the order.

        Returns:
          `Batches` of dicts of (B, ...) arrays.

        Raises:
          ValueError: for a batch size below 1.
        """
        return _batches(self._arrays, None, self._passes, batch_size, seed)

    def paired(self, pairs: Sequence[tuple[int, int]], batch_size: int, seed: int) -> Batches:
        """Endless batches of the examples of some labels, each with another label beside it.

        Args:
          pairs: (own, other) labels; an own label may have several others.
          batch_size: as of `batches`.
          seed: as of `batches`.

        Returns:
          `Batches` whose dicts hold `"other"` (B,) int32 beside the rest.

        Raises:
          ValueError: for a batch size below 1.
        """

        def pair(part):
            labels = part["label"]
            rows = [np.flatnonzero(labels == own) for own, _ in pairs]
            others = [np.full(len(r), o) for r, (_, o) in zip(rows, pairs, strict=True)]
            return np.concatenate(rows), np.concatenate(others).astype(np.int32)

        if self._arrays is not None:
            rows, others = pair(self._arrays)
            return _batches(self._arrays, (rows, others), self._passes, batch_size, seed)

        def passes():
            for part in self._passes():
                rows, others = pair(part)
                order = np.argsort(rows, kind="stable")
                rows, others = rows[order], others[order]
                if len(rows):
                    yield {**{key: value[rows] for key, value in part.items()}, OTHER: others}

        return _batches(None, None, passes, batch_size, seed)

    def _look_through(self) -> None:
        for part in self._passes():
            keys, shape = tuple(sorted(part)), part["image"].shape[1:]
            if self.count == 0:
                self.keys, self.shape = keys, shape
            elif (keys, shape) != (self.keys, self.shape):
                raise ValueError(
                    f"{self.side}: expected batches of {self.keys} with images of {self.shape}, as "
                    f"the first is, got {keys} with {shape}."
                )
            _check_values(self.side, part)
            self.count += len(part["image"])
            if "label" in part:
                for label, number in zip(
                    *np.unique(part["label"], return_counts=True), strict=True
                ):
                    self.labels[int(label)] = self.labels.get(int(label), 0) + int(number)
        if self.count == 0:
            raise ValueError(f"{self.side}: expected at least one example, got none.")


def read_examples(data: Any, side: str) -> Examples:
    """Takes what a user hands over as data, and checks all of it.

    Args:
      data: an array (N, ...) of floating-point images; a dict of arrays of one length,
        `"image"` and perhaps `"label"` (N,) int of at least 0; or an iterable of batches of
        either kind, which begins a new pass each time that `iter` is called on it. Arrays of
        JAX and of whatever NumPy can convert are fine. `Examples` are returned as they are.
      side: what to call the data in messages, such as `"retain"`.

    Returns:
      `Examples`. Arrays in memory are not copied.

    Raises:
      ValueError: for data of another kind, lengths that disagree, no examples, unknown names,
        images of integers, values that are not finite, labels that are no integers.

    Examples:
      >>> import numpy as np
      >>> from uno_jax.training.examples import read_examples
      >>> data = {"image": np.zeros((5, 2), np.float32), "label": np.array([0, 0, 1, 1, 1])}
      >>> examples = read_examples(data, "retain")
      >>> examples.count, examples.shape, examples.labels
      (5, (2,), {0: 2, 1: 3})
      >>> batches = examples.batches(4, seed=0)
      >>> batches.skip(1000)
      >>> next(batches)["image"].shape
      (4, 2)
    """
    if isinstance(data, Examples):
        return data
    if isinstance(data, tuple):
        raise ValueError(
            f"{side}: expected {SHAPES}, got a tuple; write {{'image': images, 'label': labels}}."
        )
    if isinstance(data, Mapping) or _is_array(data):
        arrays = _as_arrays(side, data)

        def chunks():
            for begin in range(0, len(arrays["image"]), CHUNK):
                yield {key: value[begin : begin + CHUNK] for key, value in arrays.items()}

        return Examples(side, chunks, arrays)
    if not isinstance(data, Iterable) or isinstance(data, str | bytes):
        raise ValueError(f"{side}: expected {SHAPES}, got {type(data).__name__}.")
    if iter(data) is data:
        raise ValueError(
            f"{side}: expected batches that can be read again, got a {type(data).__name__}, which "
            "ends after one pass; give list(batches), or an object whose __iter__ begins anew."
        )

    def passes():
        some = False
        for batch in data:
            arrays = _as_arrays(side, batch)
            if some := some or len(arrays["image"]) > 0:
                yield arrays
        if not some:
            raise ValueError(
                f"{side}: expected at least one example in each pass over the batches, got none."
            )

    return Examples(side, passes, None)


def check_alike(retain: Examples, forget: Examples) -> None:
    """Refuses two sides that are not of the same kind.

    Raises:
      ValueError: if names of arrays or shapes of images differ.
    """
    if (retain.keys, retain.shape) != (forget.keys, forget.shape):
        raise ValueError(
            f"forget: expected {retain.keys} with images of {retain.shape}, as in retain, got "
            f"{forget.keys} with {forget.shape}."
        )


def _is_array(data: Any) -> bool:
    return hasattr(data, "__array__") or hasattr(data, "__array_interface__")


def _as_arrays(side: str, data: Any) -> dict[str, np.ndarray]:
    """One dict of NumPy arrays of one length, of known names."""
    if _is_array(data):
        data = {"image": data}
    if not isinstance(data, Mapping):
        raise ValueError(
            f"{side}: expected batches that are arrays, or dicts with 'image', got a "
            f"{type(data).__name__}; write {{'image': ..., 'label': ...}}."
        )
    if "image" not in data or not set(data) <= set(KEYS):
        raise ValueError(
            f"{side}: expected the names 'image' and perhaps 'label', got "
            f"{sorted(map(str, data))}; rename the arrays, and leave out "
            "what the model does not take."
        )
    arrays = {key: np.asarray(value) for key, value in data.items()}
    lengths = {key: len(value) if value.ndim else None for key, value in arrays.items()}
    if len(set(lengths.values())) != 1 or None in lengths.values():
        raise ValueError(f"{side}: expected arrays of one length, got {lengths}.")
    return arrays


def _check_values(side: str, part: Mapping[str, np.ndarray]) -> None:
    images = part["image"]
    # The floats of other libraries, such as bfloat16, are no subtype of NumPy's.
    if images.dtype.kind in "biucOSU":
        raise ValueError(
            f"{side}: expected images of floating-point numbers, in the range that the model was "
            f"trained on, got {images.dtype}; convert them, such as images / 255 for [0, 1] or "
            "images / 127.5 - 1 for [-1, 1]."
        )
    if not np.isfinite(images).all():
        raise ValueError(f"{side}: expected finite images, got NaN or infinity; leave these out.")
    if "label" not in part:
        return
    labels = part["label"]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{side}: expected labels of shape (N,) that are integers, got {labels.shape} of "
            f"{labels.dtype}; a one-hot label becomes an integer by argmax(-1)."
        )
    if len(labels) and labels.min() < 0:
        raise ValueError(f"{side}: expected labels of at least 0, got {labels.min()}.")


def _batches(arrays, chosen, passes, batch_size, seed) -> Batches:
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}.")
    if arrays is not None:
        return Batches(lambda position: _shuffled(arrays, chosen, batch_size, seed, position))
    return Batches(lambda position: _recut(passes, batch_size, position))


def _shuffled(arrays, chosen, batch_size, seed, position) -> Iterator[dict]:
    """Batches of rows in memory, from a position on; each pass is a permutation of its own."""
    rows, others = chosen if chosen is not None else (np.arange(len(arrays["image"])), None)
    count, orders = len(rows), {}
    while True:
        places = position * batch_size + np.arange(batch_size)
        passes, places = places // count, places % count
        needed = range(int(passes[0]), int(passes[-1]) + 1)
        for number in needed:
            if number not in orders:
                orders[number] = np.random.default_rng((seed, number)).permutation(count)
        orders = {number: orders[number] for number in needed}
        which = np.concatenate([orders[number][places[passes == number]] for number in needed])
        batch = {key: value[rows[which]] for key, value in arrays.items()}
        yield batch if others is None else {**batch, OTHER: others[which]}
        position += 1


def _recut(passes, batch_size, position) -> Iterator[dict]:
    """Batches of one size from passes over batches of any, from a position on."""
    unseen = position * batch_size
    held: list[dict] = []
    while True:
        some = False
        for part in passes():
            some = True
            length = len(part["image"])
            if unseen >= length:
                unseen -= length
                continue
            held.append({key: value[unseen:] for key, value in part.items()})
            unseen = 0
            while sum(len(h["image"]) for h in held) >= batch_size:
                whole = {key: np.concatenate([h[key] for h in held]) for key in held[0]}
                yield {key: value[:batch_size] for key, value in whole.items()}
                held = [{key: value[batch_size:] for key, value in whole.items()}]
        if not some:
            raise ValueError("batches: expected examples in each pass, got none.")
