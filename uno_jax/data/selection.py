"""Which examples to forget: a predicate over labels, as a mask."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from uno_jax.data.sources import Source


class Split(NamedTuple):
    """A source divided in two.

    Attributes:
      retain: indices into the source of what to keep, ascending.
      forget: indices into the source of what to forget, ascending.
    """

    retain: np.ndarray
    forget: np.ndarray

    def describe(self) -> str:
        """One line that counts both sides."""
        return f"forget {len(self.forget):,}, retain {len(self.retain):,}"


def split_by_label(source: Source, forget: Callable[[np.ndarray], np.ndarray]) -> Split:
    """Divides a source by a predicate over its labels.

    Args:
      source: the examples.
      forget: from the (N,) labels to an (N,) boolean mask, true for what to
        forget; for example `lambda label: label == 1`.

    Returns:
      A `Split`.

    Raises:
      ValueError: if the predicate returns anything but a boolean mask, or leaves
        one side empty.
    """
    mask = np.asarray(forget(source.labels))
    if mask.shape != source.labels.shape or mask.dtype != bool:
        raise ValueError(
            f"forget: expected a boolean mask of shape {source.labels.shape}, "
            f"got {mask.dtype} of shape {mask.shape}."
        )
    return split_by_mask(mask, source.name)


def split_by_mask(mask: np.ndarray, name: str) -> Split:
    """Divides a set by a mask.

    Args:
      mask: (N,) bool, true for what to forget.
      name: of the set, for messages.

    Returns:
      A `Split`.

    Raises:
      ValueError: if the mask leaves one side empty.
    """
    split = Split(np.flatnonzero(~mask), np.flatnonzero(mask))
    if not len(split.forget) or not len(split.retain):
        raise ValueError(
            f"forget: expected to choose some of the {len(mask):,} examples of {name} "
            f"and leave some, got {split.describe()}."
        )
    return split
