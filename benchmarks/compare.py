"""Arms side by side: one process each, turn by turn (A B C A B C ...), so that what disturbs the
machine disturbs all of them.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from endonym.core.errors import MachineError

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Arm:
    """One way to do the work: a function `module:name` of (spec, Turns)."""

    name: str
    function: str
    spec: dict[str, Any] = field(default_factory=dict)


@dataclass
class Record:
    """What an arm said and took: a list of cpu and wall seconds for each kind of turn."""

    ready: dict[str, Any] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    wall: dict[str, list[float]] = field(default_factory=dict)
    peak_bytes: int = 0


def compare(
    arms: Sequence[Arm],
    turns: Sequence[dict[str, Any]],
    *,
    repeats: int,
    threads: int,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, Record]:
    """Each arm's record over `repeats` rounds of `turns`, arms in turn within each.

    A turn is given to the arm as it stands and filed under its "key". MachineError names an arm that
    ended early and shows the end of what it wrote.
    """
    with tempfile.TemporaryDirectory(prefix="endonym-bench-") as scratch:
        running: dict[str, _Running] = {}
        try:
            for arm in arms:
                note(f"{arm.name}: warming up")
                running[arm.name] = _Running(arm, Path(scratch), threads)
                running[arm.name].record.ready = running[arm.name].hear()["ready"]
            for round_ in range(repeats):
                note(f"round {round_ + 1} of {repeats}")
                for turn in turns:
                    for each in running.values():
                        each.take(turn)
            return {name: each.record for name, each in running.items()}
        finally:
            for each in running.values():
                each.stop()


class _Running:
    """An arm's process, with its standard error in a file for the case that it fails."""

    def __init__(self, arm: Arm, scratch: Path, threads: int):
        self.arm, self.record = arm, Record()
        self.log = scratch / f"{len(list(scratch.iterdir()))}.log"
        home = scratch / f"{self.log.stem}.home"
        home.mkdir()
        spec = {**arm.spec, "threads": threads, "scratch": str(home)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.turns", arm.function, json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
                env=environment(threads, home),
                cwd=home,
            )

    def take(self, turn: dict[str, Any]) -> None:
        self.process.stdin.write(json.dumps(turn) + "\n")
        self.process.stdin.flush()
        took = self.hear()
        self.record.cpu.setdefault(turn["key"], []).append(took["cpu"])
        self.record.wall.setdefault(turn["key"], []).append(took["wall"])
        self.record.peak_bytes = took["peak_bytes"]

    def hear(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            said = self.log.read_text(errors="replace").strip().splitlines()
            raise MachineError(
                f"the benchmark's arm {self.arm.name!r} ended early",
                where=self.arm.function,
                got="\n".join(said[-25:]) or f"exit status {self.process.wait()}",
                do="see above; with --without-peers only Endonym's own arms run",
            )
        return json.loads(line)

    def stop(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def environment(threads: int, home: Path) -> dict[str, str]:
    """Threads said explicitly, no busy waiting, no GPU, no network, no user's caches."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",
        "TOKENIZERS_PARALLELISM": "false",
        "RAYON_NUM_THREADS": str(threads),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_DATASETS_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": median(values), "low": min(values), "high": max(values)}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """How many times as much `theirs` took, round by round: what both suffered cancels out."""
    return spread([their / our for our, their in zip(ours, theirs)])
