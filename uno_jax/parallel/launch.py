"""Starts a command in several processes that find each other on this machine.

    python -m uno_jax.parallel.launch --processes 2 -- python -m experiments.mnist --mesh data=2

Each process is told where the first one listens, how many there are and which it is, see
`uno_jax.parallel.join_processes`. The first that fails ends the others; an interrupt or a
request to end goes to all.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time

from uno_jax.parallel.processes import COORDINATOR, COUNT, INDEX


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(command: list[str], processes: int) -> int:
    """Runs a command in so many processes.

    Args:
      command: program and arguments.
      processes: how many, at least 1.

    Returns:
      0 if all end well, else the code of the first that did not; of one that a signal
      ended, 128 and the signal.
    """
    common = {COORDINATOR: f"127.0.0.1:{_free_port()}", COUNT: str(processes)}
    running = [
        subprocess.Popen(command, env={**os.environ, **common, INDEX: str(index)})
        for index in range(processes)
    ]

    def pass_on(number, frame):
        del frame
        for process in running:
            process.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    code = 0
    while waiting := [process for process in running if process.poll() is None]:
        failed = [process.returncode for process in running if process.returncode]
        if failed and not code:
            code = failed[0]
            for process in waiting:
                process.terminate()
        time.sleep(0.1)
    code = code or next((process.returncode for process in running if process.returncode), 0)
    return 128 - code if code < 0 else code


def main(arguments: list[str] | None = None) -> int:
    """Reads the command line and launches."""
    parser = argparse.ArgumentParser(prog="python -m uno_jax.parallel.launch")
    parser.add_argument("--processes", type=int, required=True, help="how many, at least 1")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and the command")
    options = parser.parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if options.processes < 1 or not command:
        parser.error("expected a number of processes of at least 1 and a command after --")
    return launch(command, options.processes)


if __name__ == "__main__":
    sys.exit(main())
