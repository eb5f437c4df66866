"""An arm's side of a comparison: a process that works when it is its turn.

    python -m benchmarks.turns benchmarks.sft:trl '{"folder": ...}'

Everything slow and unequal (imports, reading, warming up) lies before the first turn. Between turns
the process sleeps on its standard input, so that arms take turns on one machine without starting anew.
"""

import importlib
import json
import os
import sys
import time
from typing import Any

from benchmarks import machine


class Finished(BaseException):
    """No more turns. A BaseException, so that no peer's own handlers swallow it."""


class Turns:
    """ready() once, then wait() and done() in turn until wait() raises Finished."""

    def __init__(self) -> None:
        # Libraries print to standard output: what the parent reads gets a channel of its own.
        self._out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self._began = (0.0, 0.0)

    def ready(self, **facts: Any) -> None:
        """The set-up is over; facts are what the parent compares between arms."""
        self._say(ready=facts)

    def wait(self) -> dict[str, Any]:
        """What this turn is about. The clocks start when it returns."""
        line = sys.stdin.readline().strip()
        if not line:
            raise Finished
        self._began = (machine.cpu_seconds(), time.perf_counter())
        return json.loads(line)

    def done(self) -> None:
        """The turn is over: what it took, and the peak of memory so far."""
        cpu, wall = machine.cpu_seconds(), time.perf_counter()
        self._say(
            cpu=cpu - self._began[0], wall=wall - self._began[1], peak_bytes=machine.peak_bytes()
        )

    def _say(self, **message: Any) -> None:
        self._out.write(json.dumps(message) + "\n")


class Steps:
    """Turns of whole training steps, for loops that cannot be called step by step.

    The loop calls boundary() before each step; all that it does between two calls is the step. The
    first `warmup` steps belong to no turn, and their losses are what arms are compared by.
    """

    def __init__(self, turns: Turns, warmup: int, per_turn: int):
        self.turns, self.warmup, self.per_turn = turns, warmup, per_turn
        self.begun = 0
        self.losses: list[float] = []
        self.facts: dict[str, Any] = {}
        self.looks = 0

    @property
    def is_warming_up(self) -> bool:
        return self.begun <= self.warmup

    def is_first_look(self) -> bool:
        """Asked where Endonym's loop asks for rows: true once. It looks at the first step's rows to know
        their shape before anything begins."""
        self.looks += 1
        return self.looks == 1

    def boundary(self) -> None:
        after = self.begun - self.warmup
        if after == 0:
            self.turns.ready(losses=self.losses, **self.facts)
        if after > 0 and after % self.per_turn == 0:
            self.turns.done()
        if after >= 0 and after % self.per_turn == 0:
            self.turns.wait()
        self.begun += 1


def main() -> None:
    name, spec = sys.argv[1:]
    turns = Turns()
    module, function = name.split(":")
    try:
        getattr(importlib.import_module(module), function)(json.loads(spec), turns)
    except Finished:
        sys.stdout.flush()
        os._exit(0)  # nothing of a peer's own farewell (saving, cards) is wanted


if __name__ == "__main__":
    main()
