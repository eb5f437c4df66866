"""The process that compares two mathematical expressions: rewards/math_pool.py starts and kills it.

It reads one JSON line {"gold", "answer"} at a time from stdin and writes one word a line:

    equal | different | unparsed | timeout | failed

It imports math-verify once and works in a forked child, so that a child that was killed is replaced
within milliseconds. Nothing of this package is imported. Both end when stdin does.

Each comparison has a budget of CPU time, kept by the kernel: ITIMER_PROF ends the child by SIGPROF at
its default action. That also stops one multiplication of two enormous integers, during which no Python
signal handler would run. Memory is bounded by RLIMIT_AS; who needs more counts as a timeout.
"""

import json
import logging
import os
import resource
import signal
import sys
from functools import lru_cache

MEMORY = 2 << 30  # bytes of address space


@lru_cache(maxsize=4096)
def gold_of(text: str):
    return read(text)


def read(text: str):
    from math_verify import LatexExtractionConfig, parse

    config = [LatexExtractionConfig(boxed_match_priority=-1)]
    found = parse(f"${text}$", extraction_config=config, parsing_timeout=None)
    # The last entry is the text; a text alone was read as nothing.
    return found if found and not isinstance(found[0], str) else None


def verdict(gold: str, answer: str) -> str:
    from math_verify import verify

    try:
        wanted, found = gold_of(gold), read(answer)
        if wanted is None or found is None:
            return "unparsed"
        return "equal" if verify(wanted, found, timeout_seconds=None) else "different"
    except MemoryError:
        return "timeout"
    except (
        Exception
    ):  # what sympy raises on nonsense is of every kind; RecursionError is one of them
        return "unparsed"


def serve(cpu_seconds: float, answers) -> None:
    """The child's work, until stdin ends."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    while line := sys.stdin.readline():
        pair = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        word = verdict(pair["gold"], pair["answer"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(f"{word}\n")
        answers.flush()


def main(cpu_seconds: float) -> None:
    # Whatever a library prints must not be taken for a verdict.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    verdict(
        "1", r"\sqrt{2}"
    )  # imports sympy and builds the grammar: not at the first answer's cost
    answers.write("ready\n")
    answers.flush()
    while True:
        child = os.fork()
        if child == 0:
            serve(cpu_seconds, answers)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            return  # stdin has ended
        killed_by = os.WTERMSIG(status)
        if killed_by == signal.SIGPROF:
            word = "timeout"
        elif killed_by in (
            signal.SIGSEGV,
            signal.SIGABRT,
        ):  # the parser's stack: the answer's doing
            word = "unparsed"
        else:
            word = "failed"
        answers.write(f"{word}\n")
        answers.flush()


if __name__ == "__main__":
    try:
        main(float(sys.argv[1]))
    except (BrokenPipeError, KeyboardInterrupt):  # who asked is gone, or is being stopped
        os._exit(0)
