"""python keeper.py COMMAND...: runs a command until it ends, or until this process's input does.

The input is a pipe from whoever wants the command. It closes however that one ends, also by a kill, and
then the command and all its children are ended: none is left behind with a GPU in its hands. It needs
the standard library alone and is run by its path, so it starts in no time.

What has ended stays in its group until somebody waits for it, and in a container nobody may: so on Linux
the children that a command leaves behind become this process's.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

ADOPTS = 36  # PR_SET_CHILD_SUBREAPER, <linux/prctl.h>
PATIENCE = 10.0
"""Seconds from being asked to end to being made to."""


def main(command: list[str]) -> int:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(ADOPTS, 1, 0, 0, 0)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_wait_for_end, args=(child.pid,), daemon=True).start()
    # In a thread of its own: what has ended is gone only when this one has waited for it.
    end = lambda *_: threading.Thread(target=_end, args=(child.pid,), daemon=True).start()  # noqa: E731
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    ended = None
    while ended != child.pid:
        ended, status = os.waitpid(-1, 0)
    code = child.returncode = os.waitstatus_to_exitcode(status)
    _end(child.pid, _collect)  # its children
    return code if code >= 0 else 128 - code


def _wait_for_end(group: int) -> None:
    while os.read(0, 4096):
        pass
    _end(group)


def _collect() -> None:
    """Those of our children that have ended are gone after it."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _end(group: int, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Ends a group of processes: asked first, then made to."""
    until = time.monotonic() + PATIENCE
    number = signal.SIGTERM
    try:
        while True:
            os.killpg(group, number)
            meanwhile()
            time.sleep(0.05)
            number = 0 if time.monotonic() < until else signal.SIGKILL
    except (ProcessLookupError, PermissionError):
        return  # none is left


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
