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
    from endonym.rewards.functions import Outcome
    from endonym.rewards.sandbox import Sandbox

BATCH = 64
"""Replies in one process."""
CPU_SECONDS = 5.0
"""Of one process; a call of the release had an alarm after 5 seconds."""
GIVEN_UP = 3
"""Replies of a batch at which the process ended; at the last of them the whole batch is given up."""


class Runner:
    """Results of functions in a sandbox; `counts` says why there were none: timeout, memory, killed,
    error (the process ended), ended early, raised, not a bool, batch given up, sandbox failed."""

    def __init__(self, sandbox: "Sandbox"):
        self.sandbox = sandbox
        self.counts: Counter[str] = Counter()

    def every(self, jobs: Sequence[tuple[str, Sequence[list]]]) -> list[list[bool | None] | None]:
        """What each function says of each of its inputs: True, False, or None where it said neither.
        None in place of the list where the sandbox failed: then there is no verdict on the function.
        As many processes at once as the sandbox has workers."""
        done = self.sandbox.map(lambda job: _results(self.sandbox, *job), jobs)
        for _, counts in done:
            self.counts += counts
        return [results for results, _ in done]


def _results(
    sandbox: "Sandbox", source: str, inputs: Sequence[list]
) -> tuple[list[bool | None] | None, Counter[str]]:
    found: list[bool | None] = []
    counts: Counter[str] = Counter()
    for at in range(0, len(inputs), BATCH):
        try:
            found += _batch(sandbox, source, list(inputs[at : at + BATCH]), counts)
        except Infrastructure:
            return None, Counter({"sandbox failed": 1})
    return found, counts


def _batch(
    sandbox: "Sandbox", source: str, inputs: list[list], counts: Counter[str]
) -> list[bool | None]:
    found: list[bool | None] = []
    for _ in range(GIVEN_UP):
        calls = [(NAME, each) for each in inputs[len(found) :]]
        for outcome in sandbox.call_many(source, calls, cpu_seconds=CPU_SECONDS):
            if outcome.error in ENDED:
                counts[outcome.error] += 1
                found.append(None)
                break
            found.append(_read(outcome, counts))
        if len(found) == len(inputs):
            return found
    counts["batch given up"] += 1
    return found + [None] * (len(inputs) - len(found))


def _read(outcome: "Outcome", counts: Counter[str]) -> bool | None:
    if outcome.error is not None:
        counts["raised"] += 1
    elif not isinstance(outcome.value, bool):
        counts["not a bool"] += 1
    else:
        return outcome.value
    return None


ENDED = ("ended early", "error", "timeout", "memory", "killed",
         "what came back is not one line a call")  # fmt: skip
"""Errors of rewards/functions.py that speak of the process and not of one call."""
