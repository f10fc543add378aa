"""Data sets, the choice of what to forget, and batches."""

from uno_jax._extras import require

require("grain", "experiments")

from uno_jax.data.batches import batches  # noqa: E402
from uno_jax.data.selection import Split, split_by_label  # noqa: E402
from uno_jax.data.sources import SOURCES, Source, load  # noqa: E402

__all__ = ["SOURCES", "Source", "Split", "batches", "load", "split_by_label"]
