"""What the sandbox holds and what it costs: hostile programs, cheats against the grader, honest ones.

A hostile program is contained when it ended in one of the ways it may, could do nothing that it must
not, and left no process; the honest program that runs right after it must give the right answer.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.cheats import (
    CALL_CHEATS,
    HONEST_SQUARE,
    HONEST_TOTAL,
    SQUARE,
    STREAM_CHEATS,
    TOTAL,
)
from benchmarks.honest import solutions
from benchmarks.hostile import ESCAPED, HOSTILE, Hostile
from endonym.rewards.code import grade
from endonym.rewards.program_tests import read_tests
from endonym.rewards.sandbox import Infrastructure, MiB, Sandbox

NEXT = "a, b = map(int, input().split())\nprint(a * b)\n"
MEMORY = 512 * MiB
RUNS = 40  # of a program that does nothing, for what a run costs


def run(
    size: str,
    mode: str,
    threads: int,
    repeats: int,
    folder: Path,
    note: Callable[[str], None],
    *,
    peers: bool,
) -> dict[str, Any]:
    """All programs, or of the hostile and honest ones those that end at once ("quick")."""
    sandbox = Sandbox.open(workers=threads)
    result: dict[str, Any] = {"size": size, "workers": threads, "guards": sandbox.guards()}
    chosen = [one for one in HOSTILE if size == "whole" or one.quick]
    result["hostile"] = [watched(sandbox, one) for one in chosen]
    note(f"{sum(row['contained'] for row in result['hostile'])} of {len(chosen)} contained")
    cheats = [(one, SQUARE) for one in CALL_CHEATS.values()]
    cheats += [(one, TOTAL) for one in STREAM_CHEATS.values()]
    result["cheats"] = len(cheats)
    result["paid"] = [
        names
        for names, (source, tests) in zip([*CALL_CHEATS, *STREAM_CHEATS], cheats)
        if grade(source, read_tests(tests), sandbox, cpu_seconds=1.0).share == 1.0
    ]
    for source, tests in ((HONEST_SQUARE, SQUARE), (HONEST_TOTAL, TOTAL)):
        assert grade(source, read_tests(tests), sandbox).share == 1.0
    note(f"{len(result['paid'])} of {len(cheats)} cheats paid")
    honest = list(solutions())[:: 1 if size == "whole" else 10]
    begun = time.perf_counter()
    alone = sandbox.map(lambda each: grade(each[1], read_tests(each[2]), sandbox), honest)
    result["honest"] = len(honest)
    result["honest_seconds"] = time.perf_counter() - begun
    result["refused"] = [name for (name, _, _), found in zip(honest, alone) if found.share < 1.0]
    note(f"{len(result['refused'])} of {len(honest)} honest programs refused")
    result["moved"] = verdicts_under_load(sandbox, honest, cheats)
    note(f"{len(result['moved'])} verdicts moved under load")
    return result | cost(sandbox, RUNS if size == "whole" else 5)


def watched(sandbox: Sandbox, program: Hostile) -> dict[str, Any]:
    """One hostile program and the honest one after it."""
    begun = time.perf_counter()
    try:
        done = sandbox.run(program.source, cpu_seconds=1.0, memory=MEMORY)
    except Infrastructure as error:
        return {"name": program.name, "contained": False, "status": f"infrastructure: {error}"}
    wall = time.perf_counter() - begun
    left = living_children()
    after = sandbox.run(NEXT, b"6 7\n")
    return {
        "name": program.name,
        "contained": done.status in program.ends
        and ESCAPED not in done.stdout
        and len(done.stdout) <= sandbox.output
        and done.memory <= MEMORY + MEMORY // 2  # between two looks more can be taken
        and not left,
        "status": done.status,
        "next_right": after.status == "ok" and after.stdout == b"42\n",
        "seconds": done.seconds,
        "wall": wall,
        "memory": done.memory,
        "left": left,
    }


def living_children() -> int:
    """Children of this process, living or not waited for, in all its threads."""
    return sum(len(file.read_text().split()) for file in Path("/proc/self/task").glob("*/children"))


def verdicts_under_load(sandbox: Sandbox, honest: list, cheats: list) -> list[str]:
    """Programs whose verdict changes while every core is kept busy by twice as many loops.

    The honest ones must still pass; of the others one works for 0.5 s of the 1 s that it is given and
    must pass, one for 1.5 s and must not.
    """
    work = (
        "import time\ndef square(n):\n    end = time.process_time() + {}\n"
        "    while time.process_time() < end:\n        pass\n    return n * n\n"
    )
    tests = read_tests(SQUARE[:1])
    cases = [(name, source, read_tests(asked), True) for name, source, asked in honest[::8]]
    cases += [("works for half its time", work.format(0.5), tests, True)] * 4
    cases += [("works for one and a half times", work.format(1.5), tests, False)] * 4
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(2 * (os.cpu_count() or 1))
    ]
    try:
        found = sandbox.map(lambda case: grade(*case[1:3], sandbox, cpu_seconds=1.0), cases)
    finally:
        for one in busy:
            one.kill()
            one.wait()
    return [
        name for (name, _, _, is_right), one in zip(cases, found) if (one.share == 1.0) != is_right
    ]


def cost(sandbox: Sandbox, runs: int) -> dict[str, Any]:
    """What a run of a program that does nothing takes, alone and side by side."""

    def timed(act: Callable[[], object]) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), machine.cpu_seconds()
        act()
        return time.perf_counter() - wall, machine.cpu_seconds() - cpu

    bare = [sys.executable, "-I", "-c", "print(1)"]
    single, plain = [], []
    for _ in range(runs):
        single.append(timed(lambda: sandbox.run("print(1)")))
        plain.append(timed(lambda: subprocess.run(bare, capture_output=True, check=True)))
    many, many_cpu = timed(lambda: sandbox.map(lambda _: sandbox.run("print(1)"), range(4 * runs)))
    return {
        "run_wall": statistics.median(wall for wall, _ in single),
        "run_wall_best": min(wall for wall, _ in single),
        "run_cpu": statistics.median(cpu for _, cpu in single),
        "plain_wall": statistics.median(wall for wall, _ in plain),
        "plain_cpu": statistics.median(cpu for _, cpu in plain),
        "runs_per_second": 4 * runs / many,
        "runs_per_cpu_second": 4 * runs / many_cpu,
        "left": living_children(),
    }


def page(each: dict[str, Any]) -> str:
    """The figures as Markdown."""
    rows = each["hostile"]
    held = [row for row in rows if row["contained"]]
    right = [row for row in rows if row.get("next_right")]
    lines = [
        f"## sandbox: {each['size']}, {each['workers']} workers\n",
        f"{each['guards'].capitalize()}.\n",
        "| | |\n| --- | --- |",
        f"| hostile programs contained | {len(held)} of {len(rows)} |",
        f"| the honest program after each right | {len(right)} of {len(rows)} |",
        f"| most memory of a hostile program | {max(r.get('memory', 0) for r in rows) / MiB:.0f} MiB |",
        f"| cheats paid | {len(each['paid'])} of {each['cheats']} |",
        f"| honest programs refused | {len(each['refused'])} of {each['honest']} |",
        f"| verdicts that moved under load | {len(each['moved'])} |",
        f"| one run alone, wall | {1000 * each['run_wall']:.0f} ms"
        f" (best {1000 * each['run_wall_best']:.0f}; Python alone {1000 * each['plain_wall']:.0f}) |",
        f"| one run alone, CPU | {1000 * each['run_cpu']:.0f} ms"
        f" (Python alone {1000 * each['plain_cpu']:.0f}) |",
        f"| runs a second, {each['workers']} side by side | {each['runs_per_second']:.0f}"
        f" ({each['runs_per_cpu_second']:.0f} a CPU-second) |",
        f"| processes left | {each['left']} |",
        "",
    ]
    for title, names in (
        ("Paid", each["paid"]),
        ("Refused", each["refused"]),
        ("Moved", each["moved"]),
    ):
        if names:
            lines.append(f"{title}: {', '.join(names)}.\n")
    lines.append("| hostile program | contained | next right | end | CPU s | wall s | MiB | left |")
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        if "next_right" not in row:
            lines.append(f"| {row['name']} | no | | {row['status']} | | | | |")
            continue
        contained, after = ("yes" if row[key] else "NO" for key in ("contained", "next_right"))
        lines.append(
            f"| {row['name']} | {contained} | {after} | {row['status']} | {row['seconds']:.2f} "
            f"| {row['wall']:.2f} | {row['memory'] / MiB:.0f} | {row['left']} |"
        )
    return "\n".join(lines) + "\n"
