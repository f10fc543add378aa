"""Several processes, on one machine or many, through JAX's own runtime."""

import os

import jax

COORDINATOR = "JAX_COORDINATOR_ADDRESS"
COUNT = "UNO_PROCESS_COUNT"
INDEX = "UNO_PROCESS_INDEX"


def join_processes() -> bool:
    """Joins the other processes, if there are any; to be called before anything else of JAX.

    Processes that `python -m uno_jax.parallel.launch` started find each other by what it put
    into their environment. On a cluster that JAX knows (SLURM, Open MPI, TPU pods, GKE with
    its job index) `jax.distributed.initialize()` finds out by itself: call that instead.

    Returns:
      Whether there are other processes.
    """
    if COUNT not in os.environ:
        return False
    jax.distributed.initialize(
        os.environ[COORDINATOR], int(os.environ[COUNT]), int(os.environ[INDEX])
    )
    return True


def is_first() -> bool:
    """Whether this process is the one that prints and writes."""
    return jax.process_index() == 0


def shard_of_process() -> dict[str, int]:
    """`shard_index` and `shard_count` for `uno_jax.data.batches`."""
    return {"shard_index": jax.process_index(), "shard_count": jax.process_count()}
