"""Whole states on disk: one checkpoint, or a series of them that survives what may happen."""

from uno_jax.checkpoints.manifest import fingerprint, make_manifest
from uno_jax.checkpoints.preemption import Preemption
from uno_jax.checkpoints.series import Restored, Series
from uno_jax.checkpoints.store import exists, restore, save, steps_in

__all__ = [
    "Preemption",
    "Restored",
    "Series",
    "exists",
    "fingerprint",
    "make_manifest",
    "restore",
    "save",
    "steps_in",
]
