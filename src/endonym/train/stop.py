"""SIGTERM and SIGINT as a wish that the loop reads at its next step border.

The first signal is noted, so that a checkpoint can be written between two steps; the second one
ends the process at once with the same exit status. 143 and 130 are what shells report for the two.
"""

import os
import signal
import threading
from types import FrameType
from typing import Self

from endonym.core.console import Console


class Stopped(SystemExit):
    """The run was asked to stop and saved its state; the exit status is 128 + the signal's number."""

    def __init__(self, signum: int, step: int):
        self.signum, self.step = signum, step
        super().__init__(128 + signum)


class StopRequest:
    """While entered, holds the first signal's number in `signum`; 0 until one comes.

    Handlers belong to the main thread. In another thread nothing is installed and signals keep
    their usual effect; the atomic checkpoints make that safe, only the last save is missing.
    """

    signals = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, console: Console):
        self.signum = 0
        self._console = console
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self.signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum:
            os._exit(128 + signum)
        self.signum = signum
        # Written straight to the file descriptor: the console may be in the middle of a line.
        text = b"\nstopping after this step; once more stops at once, without a save\n"
        if not self._console.quiet:
            os.write(2, text)
