"""A machine that is to be taken away says so with SIGTERM: stop after the step, saved."""

import signal
import threading


class Preemption:
    """Whether the process has been asked to end.

    As a context it takes SIGTERM; outside the main thread, where no signal can be taken, it
    is never asked.

    Examples:
      >>> from uno_jax import checkpoints
      >>> with checkpoints.Preemption() as preemption:
      ...     preemption.asked
      False
    """

    def __init__(self):
        self.asked = False
        self._before = None

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *exception) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number, frame) -> None:
        del number, frame
        self.asked = True
