"""Whether a program in a reply does what its tests ask: run in the sandbox, judged out of it.

    reply -> last closed ``` block that is marked as Python or not marked -> its tests -> pass or not

Forms of tests are in program_tests.py, what equals what in equality.py.

What is expected never enters the process of the program, which therefore has nothing to find there,
nothing to patch and no verdict to forge; it can only give values. Tests are hidden from the model as
long as the prompt does not show them: the column is read here alone.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from endonym.rewards.base import FAILED, Completion, column, reply_text
from endonym.rewards.equality import equal, same_output
from endonym.rewards.program_tests import Call, Stream, read_tests
from endonym.rewards.sandbox import Infrastructure, MiB, Sandbox

LONGEST = 100_000  # characters of a program
PYTHON = {"", "python", "python3", "py"}


@dataclass(frozen=True)
class Grade:
    """reasons: one a test, "equal" where it passed; otherwise what was wrong."""

    reasons: list[str]

    @property
    def share(self) -> float:
        return self.reasons.count("equal") / len(self.reasons)


def extract(text: str) -> str | None:
    """The last closed fenced block of a text that is Python or does not say; None if there is none."""
    found, fence, inside, marked = None, "", [], ""
    for line in text.split("\n"):
        bare = line.strip()
        if fence:
            if bare.startswith(fence) and not bare.strip(fence[0]):
                if marked in PYTHON:
                    found = "\n".join(inside) + "\n"
                fence = ""
            else:
                inside.append(line)
        elif bare.startswith(("```", "~~~")):
            rest = bare.lstrip(bare[0])
            fence, inside = bare[: len(bare) - len(rest)], []
            marked = (rest.split() or [""])[0].casefold().strip("{}.")
    return found if found is None or len(found) <= LONGEST else None


def grade(
    source: str,
    tests: Sequence[Call | Stream],
    sandbox: Sandbox,
    *,
    cpu_seconds: float = 4.0,
    memory: int = 512 * MiB,
    twice: bool = False,
    every: bool = True,
) -> Grade:
    """What each test says of a program.

    cpu_seconds: for all calls together, which run in one process, and for each run of the program.
    every: False stops at the first test that fails. twice: everything runs a second time, with other
    hashes of strings, and a test passes only if both do. Infrastructure if the sandbox failed.
    """
    limits = {"cpu_seconds": cpu_seconds, "memory": memory}
    reasons: list[str] = []
    for seed in range(1 + twice):
        calls = [test for test in tests if isinstance(test, Call)]
        asked = [(test.function, test.arguments) for test in calls]
        outcomes = iter(sandbox.call_many(source, asked, hash_seed=seed, **limits) if calls else [])
        found: list[str] = []
        for test in tests:
            if isinstance(test, Call):
                outcome = next(outcomes)
                is_right = outcome.error is None and equal(outcome.value, test.expected)
                found.append("equal" if is_right else outcome.error or "different")
            elif not every and any(reason != "equal" for reason in found):
                found.append("not run")
            else:
                run = sandbox.run(source, test.stdin.encode(), hash_seed=seed, **limits)
                is_right = run.status == "ok" and same_output(run.stdout, test.stdout)
                wrong = "different" if run.status == "ok" else run.status
                found.append("equal" if is_right else wrong)
        reasons = [then if now == "equal" else now for then, now in zip(reasons or found, found)]
        if not every and any(reason != "equal" for reason in reasons):
            break
    return Grade(reasons)


class Code:
    """1.0 where the completion's program passes all of the row's `tests`, else 0.0.

    share: the share of the tests that pass instead. None where the row has no tests; 0.0 where the
    reply holds no program; FAILED where the sandbox failed. counts: how completions fared.
    """

    __name__ = "code"

    def __init__(
        self,
        *,
        share: bool = False,
        twice: bool = False,
        cpu_seconds: float = 4.0,
        memory: int = 512 * MiB,
    ):
        self.share, self.twice = share, twice
        self.cpu_seconds, self.memory = cpu_seconds, memory
        self.counts: Counter[str] = Counter()
        self._sandbox: Sandbox | None = None
        self._lock = Lock()

    def __call__(
        self, prompts, completions: list[Completion], tests=None, **columns
    ) -> list[float | None]:
        rows = [
            (reply_text(completion), None if given is None else read_tests(given))
            for completion, given in zip(completions, column("tests", tests, completions))
        ]
        if all(asked is None for _, asked in rows):
            return [None] * len(rows)
        return self._opened().map(lambda row: self._judge(*row), rows)

    def described(self) -> dict[str, Any]:
        return {"verdicts": dict(self.counts)}

    def _opened(self) -> Sandbox:
        """The sandbox, opened by the first rows that need it."""
        with self._lock:
            if self._sandbox is None:
                self._sandbox = Sandbox.open()
            return self._sandbox

    def _judge(self, reply: str, tests: list[Call | Stream] | None) -> float | None:
        if tests is None:
            return None
        program = extract(reply)
        if program is None:
            return self._count("no program", 0.0)
        try:
            found = grade(
                program,
                tests,
                self._opened(),
                cpu_seconds=self.cpu_seconds,
                memory=self.memory,
                twice=self.twice,
                every=self.share,
            )
        except Infrastructure:
            return self._count("sandbox failed", FAILED)
        is_right = found.share == 1.0
        return self._count(
            "right" if is_right else "wrong", found.share if self.share else float(is_right)
        )

    def _count(self, verdict: str, value: float) -> float:
        with self._lock:
            self.counts[verdict] += 1
        return value


code = Code()
"""The reward with its defaults, in TRL's form: code(prompts, completions, tests=None, **columns)."""
