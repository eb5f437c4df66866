"""python keeper.py COMMAND...: runs a command until it ends, or until this process's input does.

The input is a pipe from whoever wants the command. It closes however that one ends, also by a kill, and
then the command and all its children are ended: none is left behind with a GPU in its hands. It needs
the standard library alone and is run by its path, so it starts in no time.
"""

import os
import signal
import subprocess
import sys
import threading
import time

PATIENCE = 10.0
"""Seconds from being asked to end to being made to."""


def main(command: list[str]) -> int:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_wait_for_end, args=(child.pid,), daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: _end(child.pid))
    code = child.wait()
    _end(child.pid)  # its children
    return code if code >= 0 else 128 - code


def _wait_for_end(group: int) -> None:
    while os.read(0, 4096):
        pass
    _end(group)


def _end(group: int) -> None:
    """Ends a group of processes: asked first, then made to."""
    until = time.monotonic() + PATIENCE
    number = signal.SIGTERM
    try:
        while True:
            os.killpg(group, number)
            time.sleep(0.05)
            number = 0 if time.monotonic() < until else signal.SIGKILL
    except (ProcessLookupError, PermissionError):
        return  # none is left


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
