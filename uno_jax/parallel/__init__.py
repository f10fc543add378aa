"""One step on many devices: meshes, where arrays lie, pmap, several processes."""

from uno_jax.parallel.mesh import (
    batch_sharding,
    make_mesh,
    parse_mesh,
    replicated,
    shard_batch,
)
from uno_jax.parallel.pmap import PMAP_AXIS, pmap_step, replicate, split, unreplicate
from uno_jax.parallel.processes import is_first, join_processes, shard_of_process
from uno_jax.parallel.rules import DIT_RULES, gather, jit_step, shard_state, state_shardings

__all__ = [
    "DIT_RULES",
    "PMAP_AXIS",
    "batch_sharding",
    "gather",
    "is_first",
    "jit_step",
    "join_processes",
    "make_mesh",
    "parse_mesh",
    "pmap_step",
    "replicate",
    "replicated",
    "shard_batch",
    "shard_of_process",
    "shard_state",
    "split",
    "state_shardings",
    "unreplicate",
]
