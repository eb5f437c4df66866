"""Generated functions run on replies, in the sandbox alone (rewards/sandbox.py).

One process gets a batch of replies as JSON and prints a line a result; the parent reads. Where a
process ends early (a reply on which the function loops for ever) that reply is given up and those
after it are tried in a new process, so one reply does not speak for the others.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from endonym.rewards.sandbox import Infrastructure
from endonym.synth.instruct.verifiers import NAME

if TYPE_CHECKING:
    from endonym.rewards.sandbox import Sandbox

BATCH = 64
"""Replies in one process."""
CPU_SECONDS = 5.0
"""Of one process; a call of the release had an alarm after 5 seconds."""
GIVEN_UP = 3
"""Replies of a batch at which the process ended; at the last of them the whole batch is given up."""


class Runner:
    """Results of functions in a sandbox, and why there were none: timeout, memory, killed, error (it
    ended), ended early, raised, not a bool, sandbox failed."""

    def __init__(self, sandbox: "Sandbox"):
        self.sandbox = sandbox
        self.counts: Counter[str] = Counter()

    def results(self, source: str, inputs: Sequence[list]) -> list[bool | None] | None:
        """What the function says of each input: True, False, or None where it said neither. None alone
        where the sandbox failed: then there is no verdict on the function."""
        found: list[bool | None] = []
        for at in range(0, len(inputs), BATCH):
            try:
                found += self._batch(source, list(inputs[at : at + BATCH]))
            except Infrastructure:
                self.counts["sandbox failed"] += 1
                return None
        return found

    def _batch(self, source: str, inputs: list[list]) -> list[bool | None]:
        found: list[bool | None] = []
        for _ in range(GIVEN_UP):
            calls = [(NAME, each) for each in inputs[len(found) :]]
            done = self.sandbox.call_many(source, calls, cpu_seconds=CPU_SECONDS)
            for outcome in done:
                if outcome.error in ENDED:
                    self.counts[outcome.error] += 1
                    found.append(None)
                    break
                found.append(self._read(outcome))
            if len(found) == len(inputs):
                return found
        self.counts["batch given up"] += 1
        return found + [None] * (len(inputs) - len(found))

    def _read(self, outcome) -> bool | None:
        if outcome.error is not None:
            self.counts["raised"] += 1
            return None
        if not isinstance(outcome.value, bool):
            self.counts["not a bool"] += 1
            return None
        return outcome.value


ENDED = ("ended early", "error", "timeout", "memory", "killed",
         "what came back is not one line a call")  # fmt: skip
"""Errors of rewards/functions.py that speak of the process and not of one call."""
