"""Several processes, on one machine or many, through JAX's own runtime."""

import os

import jax

COORDINATOR = "JAX_COORDINATOR_ADDRESS"
COUNT = "UNO_PROCESS_COUNT"
INDEX = "UNO_PROCESS_INDEX"
CLUSTER = "UNO_CLUSTER"
TASKS = {"SLURM_STEP_NODELIST": "SLURM_NTASKS", "OMPI_COMM_WORLD_RANK": "OMPI_COMM_WORLD_SIZE"}
"""What only a process that a scheduler started knows, and the number of such processes."""


def join_processes() -> bool:
    """Joins the other processes, if there are any; to be called before anything else of JAX.

    Processes that `python -m uno_jax.parallel.launch` started find each other by what it put
    into their environment; those of a SLURM step (`srun`) or of Open MPI (`mpirun`), if there
    is more than one, by what `jax.distributed.initialize()` finds out. It does so too on TPU
    pods and on GKE; there, say `UNO_CLUSTER=1` in the environment.

    Returns:
      Whether this process was told to join others.
    """
    if COUNT in os.environ:
        jax.distributed.initialize(
            os.environ[COORDINATOR], int(os.environ[COUNT]), int(os.environ[INDEX])
        )
        return True
    tasks = [os.environ.get(count, "1") for own, count in TASKS.items() if own in os.environ]
    if os.environ.get(CLUSTER, "0") != "0" or any(int(count) > 1 for count in tasks):
        jax.distributed.initialize()
        return True
    return False


def is_first() -> bool:
    """Whether this process is the one that prints and writes."""
    return jax.process_index() == 0


def shard_of_process() -> dict[str, int]:
    """`shard_index` and `shard_count` for `uno_jax.data.batches`."""
    return {"shard_index": jax.process_index(), "shard_count": jax.process_count()}
