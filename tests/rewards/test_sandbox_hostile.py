"""Hostile programs that end at once: each comes to nothing, and the honest one after it is right.

The whole list, slow ones included, is `python -m benchmarks sandbox`.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.hostile import ESCAPED, HOSTILE

from endonym.rewards.sandbox import MiB

QUICK = [program for program in HOSTILE if program.quick]
NEXT = "a, b = map(int, input().split())\nprint(a * b)\n"


@pytest.mark.parametrize("program", QUICK, ids=lambda program: program.name)
def test_a_hostile_program_comes_to_nothing(sandbox, program):
    done = sandbox.run(program.source, cpu_seconds=1.0)
    assert done.status in program.ends, done
    assert ESCAPED not in done.stdout, done.stdout
    assert len(done.stdout) <= sandbox.output and len(done.stderr) <= sandbox.output
    assert done.memory <= 600 * MiB
    after = sandbox.run(NEXT, b"6 7\n")
    assert (after.status, after.stdout) == ("ok", b"42\n")


def test_there_are_sixty():
    assert len(HOSTILE) >= 60 and len({program.name for program in HOSTILE}) == len(HOSTILE)
