"""Data sets, the choice of what to forget, and batches."""

from uno_jax._extras import require

require("grain", "experiments")
require("scipy", "experiments")

from uno_jax.data.batches import array_batches, batches  # noqa: E402
from uno_jax.data.celeba_files import ATTRIBUTES  # noqa: E402
from uno_jax.data.expressions import Expression, parse  # noqa: E402
from uno_jax.data.faces import (  # noqa: E402
    FACE_SOURCES,
    Faces,
    face_batches,
    load_faces,
    to_floats,
)
from uno_jax.data.latents import Latents, load_latents, write_latents  # noqa: E402
from uno_jax.data.selection import Split, split_by_label, split_by_mask  # noqa: E402
from uno_jax.data.sources import SOURCES, Source, flatten, load  # noqa: E402

__all__ = [
    "ATTRIBUTES",
    "FACE_SOURCES",
    "SOURCES",
    "Expression",
    "Faces",
    "Latents",
    "Source",
    "Split",
    "array_batches",
    "batches",
    "face_batches",
    "flatten",
    "load",
    "load_faces",
    "load_latents",
    "parse",
    "split_by_label",
    "split_by_mask",
    "to_floats",
    "write_latents",
]
