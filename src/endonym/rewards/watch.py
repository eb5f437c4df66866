"""What a process and all that came from it take, read from /proc: CPU time and memory.

Limits of a process bind each process alone. A program of sixteen processes is judged by their sum,
so the sum is looked at while it runs. Where memory is shared after a fork, the kernel's proportional
set size counts each page once; it is read only when the plain sum, which is cheap, is over the limit.
"""

import os
from dataclasses import dataclass

TICK = 1 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Use:
    """Seconds of CPU, those of ended children included; bytes resident."""

    seconds: float
    memory: int


def tree(pid: int, most: int) -> list[int]:
    """A process and its living descendants, by number; at most one more than `most`.

    A program that multiplies faster than we count must not keep us counting.
    """
    found, ahead = [], [pid]
    while ahead and len(found) <= most:
        one = ahead.pop()
        found.append(one)
        try:
            threads = os.listdir(f"/proc/{one}/task")
        except OSError:
            continue
        for thread in threads:
            ahead += map(int, _read(f"/proc/{one}/task/{thread}/children").split())
    return found


def use(pids: list[int], enough: int) -> Use:
    """What these processes take; memory is the plain sum while that is at most `enough`."""
    seconds = memory = 0.0
    for pid in pids:
        # The name in brackets may hold anything; the numbers begin after the last bracket.
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        if len(fields) > 22:
            seconds += sum(map(int, fields[11:15])) * TICK  # user, system; children's user, system
            memory += int(fields[21]) * PAGE
    if memory > enough:
        memory = sum(_proportional(pid) for pid in pids)
    return Use(seconds, int(memory))


def _proportional(pid: int) -> int:
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(fields[21]) * PAGE if len(fields) > 22 else 0


def _read(path: str) -> bytes:
    """A file of /proc; nothing where the process has gone."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""
