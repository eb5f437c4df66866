"""Step 3: functions and test cases judge each other; all functions run in the sandbox.

    keep a case       if at least one function agrees with it
    accuracy          of a function: share of the kept cases that it gets right
    keep a function   if its accuracy is at least 0.8 and it gets more than half of the cases of
                      either outcome right
    keep a constraint if it has at least 3 functions that run, 10 kept cases, both outcomes among them,
                      and one function that is kept

The first, second and the 0.8 are AutoIF's (arXiv:2406.13542) and the release's. The release computes the
minimums and never applies them. "More than half of either outcome" is ours: where 3 of 15 cases are
negative a function that is always True has an accuracy of 0.8.

An outcome that is no bool, an error and a limit of the sandbox are wrong answers of the function.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from endonym.core.config import Config
from endonym.synth.instruct.running import Runner
from endonym.synth.instruct.verifiers import Candidate, views


class Minimums(Config):
    """What a constraint must have to be used; the defaults are AutoIF's."""

    functions: int = 3
    """That run: give a bool for one case or more."""
    cases: int = 10
    accuracy: float = 0.8


@dataclass
class Verified:
    """An instruction with the functions and cases that agree; the best function first."""

    text: str
    functions: list[str]
    accuracy: list[float]
    cases: list[tuple[str, bool]] = field(default_factory=list)


def cross_validated(
    candidates: Sequence[Candidate],
    language: str,
    runner: Runner,
    minimums: Minimums,
    counts: Counter[str],
) -> list[Verified]:
    """The candidates that agree with themselves. Counted: why the others were dropped, cases without a
    function that agrees, functions by what became of them (kept, fails, inaccurate, one-sided)."""
    fit = [
        len(each.functions) >= minimums.functions and len(each.cases) >= minimums.cases
        for each in candidates
    ]
    jobs = []
    for candidate in (each for each, fits in zip(candidates, fit) if fits):
        inputs = [views(reply, language) for reply, _ in candidate.cases]
        jobs += [(source, inputs) for source in candidate.functions]
    done = iter(runner.every(jobs))
    found = []
    for candidate, fits in zip(candidates, fit):
        results = {source: next(done) for source in candidate.functions} if fits else {}
        reason, kept = _judged(candidate, results, minimums, counts)
        counts[reason] += 1
        if kept is not None:
            found.append(kept)
    return found


def _judged(
    candidate: Candidate,
    results: dict[str, list[bool | None] | None],
    minimums: Minimums,
    counts: Counter[str],
) -> tuple[str, Verified | None]:
    """(what became of the constraint, it if it stays)."""
    if len(candidate.functions) < minimums.functions:
        return "too few functions", None
    if len(candidate.cases) < minimums.cases:
        return "too few cases", None
    if any(each is None for each in results.values()):
        return "sandbox failed", None
    running = {each: said for each, said in results.items() if any(s is not None for s in said)}
    counts["function fails"] += len(results) - len(running)
    if len(running) < minimums.functions:
        return "too few functions", None
    wanted = [result for _, result in candidate.cases]
    kept = [n for n, want in enumerate(wanted) if any(s[n] is want for s in running.values())]
    counts["case without a function"] += len(wanted) - len(kept)
    if len(kept) < minimums.cases:
        return "too few cases", None
    if len({wanted[n] for n in kept}) < 2:
        return "one outcome only", None
    good: list[tuple[float, str]] = []
    for source, said in running.items():
        right = [said[n] is wanted[n] for n in kept]
        accuracy = sum(right) / len(right)
        halves = [[r for r, n in zip(right, kept) if wanted[n] is side] for side in (True, False)]
        if accuracy < minimums.accuracy:
            counts["function inaccurate"] += 1
        elif any(2 * sum(half) <= len(half) for half in halves):
            counts["function one-sided"] += 1
        else:
            counts["function kept"] += 1
            good.append((accuracy, source))
    if not good:
        return "no function is right", None
    good.sort(key=lambda pair: -pair[0])  # stable: of equals the first written
    cases = [candidate.cases[n] for n in kept]
    return "kept", Verified(candidate.text, [s for _, s in good], [a for a, _ in good], cases)
