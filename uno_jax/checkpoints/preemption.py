"""A machine that is to be taken away says so with SIGTERM: stop after the step, saved."""

import signal
import threading

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Whether the run has been asked to end.

    As a context it takes SIGTERM; outside the main thread, where no signal can be taken, it
    is never asked. Of several processes JAX's runtime takes it, and all are told at the same
    step, whichever was asked.

    Examples:
      >>> from uno_jax import checkpoints
      >>> with checkpoints.Preemption() as preemption:
      ...     preemption.asked(step=1)
      False
    """

    def __init__(self):
        self._asked = False
        self._before = None

    def __enter__(self) -> "Preemption":
        alone = jax.process_count() == 1
        if alone and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *exception) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def asked(self, step: int) -> bool:
        """Whether to end now; to be called once after every step, by every process.

        Args:
          step: number of the step, which goes up by one.
        """
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked

    def _ask(self, number, frame) -> None:
        del number, frame
        self._asked = True
