"""Data sets, the choice of what to forget, and batches."""

from uno_jax._extras import require

require("grain", "experiments")
require("scipy", "experiments")

from uno_jax.data.batches import array_batches, batches  # noqa: E402
from uno_jax.data.redirect import LatentRedirect, latent_redirect  # noqa: E402
from uno_jax.data.selection import Split, split_by_label  # noqa: E402
from uno_jax.data.sources import SOURCES, Source, flatten, load  # noqa: E402

__all__ = [
    "SOURCES",
    "LatentRedirect",
    "Source",
    "Split",
    "array_batches",
    "batches",
    "flatten",
    "latent_redirect",
    "load",
    "split_by_label",
]
