"""What a run writes down: metrics.jsonl (exact), timing.jsonl (clock), TensorBoard, a tracker if asked.

metrics.jsonl holds one object a step, with deterministic fields only, so that the log of a run that
was killed and resumed is bitwise that of one that was not:

    {"step": 7, "loss", "grad_norm", "learning_rate", "tokens", the objective's figures,
     the loader's ("phase", "epoch/<source>" ...), and of a fault "fault" and, not taken, "skipped"}
    {"step": 8, "probe": {"needle/found": 0.93}}      measured after 8 steps
    {"step": 4, "fault": {..., "at": 7}}              back to the state after 4 steps (train/health.py)

Only lines of the first kind have a "loss". Seconds and rates stand in timing.jsonl, where a step that
was done twice appears twice. TensorBoard shows both, under <scratch>/tensorboard.
"""

import errno
import hashlib
import json
import os
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, Self

from endonym.core.artifact import machine_error
from endonym.train.track import tracker


class Meter:
    """The logs of one run, opened at the place where a checkpoint left them."""

    def __init__(self, scratch: Path, step: int, metrics_bytes: int, title: str = "train"):
        self.path = scratch / "metrics.jsonl"
        self._timing_path = scratch / "timing.jsonl"
        scratch.mkdir(parents=True, exist_ok=True)
        self._track = tracker(scratch, title)
        self._timing = FileIO(self._timing_path, "a")
        self._metrics = self._board = None
        self.cut(step, metrics_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._metrics.close()
        self._timing.close()
        with suppress(OSError):  # a full disk; metrics.jsonl has said so, or holds the same values
            self._board.close()
        if self._track:
            self._track[1]()

    def cut(self, step: int, metrics_bytes: int) -> None:
        """Goes on after `step` steps and so many bytes of metrics.jsonl; what stood behind is dropped."""
        if self._metrics is not None:
            self._metrics.close()
            self._board.close()
        self._metrics = _open_at(self.path, metrics_bytes)
        self._digest = hashlib.sha256()
        with open(self.path, "rb") as file:
            while metrics_bytes and (block := file.read(min(metrics_bytes, 1 << 20))):
                self._digest.update(block)
                metrics_bytes -= len(block)
        from torch.utils.tensorboard import SummaryWriter  # 0.2 s, and only a run needs it

        board = self.path.with_name("tensorboard")
        self._board = SummaryWriter(str(board), purge_step=step)

    def step(self, record: dict[str, Any], timing: dict[str, Any]) -> None:
        """One step's exact figures and its times. MachineError where the disk is full."""
        self._write(record)
        self.timing(timing)
        self._show("train", {**record, **timing}, record["step"])

    def probe(self, step: int, figures: dict[str, float]) -> None:
        """What the probes said after `step` steps."""
        self._write({"step": step, "probe": figures})
        self._show("probe", figures, step)

    def fault(self, line: dict[str, Any]) -> None:
        """A return to an earlier state, and why."""
        self._write(line)

    def timing(self, record: dict[str, Any]) -> None:
        """A line of timing.jsonl alone, such as the cost of a save."""
        _append(self._timing, (json.dumps(record) + "\n").encode(), self._timing_path)

    def position(self) -> tuple[int, str]:
        """Bytes of metrics.jsonl and their sha256, once they are on the disk."""
        os.fsync(self._metrics.fileno())
        return self._metrics.tell(), self._digest.hexdigest()

    def _write(self, record: dict[str, Any]) -> None:
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        _append(self._metrics, line, self.path)
        self._digest.update(line)

    def _show(self, group: str, figures: dict[str, Any], step: int) -> None:
        shown = {
            f"{group}/{name}": value
            for name, value in figures.items()
            if name != "step" and isinstance(value, int | float)
        }
        try:
            for name, value in shown.items():
                self._board.add_scalar(name, value, step)
        except OSError as error:  # from an earlier write: TensorBoard's run in a thread
            raise machine_error(error, self.path.with_name("tensorboard")) from error
        if self._track:
            self._track[0](shown, step)


class NoMeter(Meter):
    """Of a process that is not the main one: it writes nothing."""

    def __init__(self):
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def cut(self, step: int, metrics_bytes: int) -> None:
        pass

    def step(self, record: dict[str, Any], timing: dict[str, Any]) -> None:
        pass

    def probe(self, step: int, figures: dict[str, float]) -> None:
        pass

    def fault(self, line: dict[str, Any]) -> None:
        pass

    def timing(self, record: dict[str, Any]) -> None:
        pass

    def position(self) -> tuple[int, str]:
        return 0, hashlib.sha256().hexdigest()


def losses(path: Path, steps: int) -> dict[str, float | None]:
    """Mean loss of the first and of the last twentieth of `steps` steps, out of metrics.jsonl."""
    with open(path, encoding="utf-8") as file:
        lines = (json.loads(line) for line in file)
        values = [line["loss"] for line in lines if "loss" in line]
    share = max(1, steps // 20)
    means = {}
    for name, part in (("loss_first", values[:share]), ("loss", values[-share:])):
        known = [value for value in part if value is not None]
        means[name] = sum(known) / len(known) if known else None
    return means


def _open_at(path: Path, length: int) -> FileIO:
    """The file cut to `length` bytes and opened for appending, without a buffer."""
    file = FileIO(path, "a")
    if path.stat().st_size != length:
        file.truncate(length)
    file.seek(length)
    return file


def _append(file: FileIO, line: bytes, path: Path) -> None:
    try:
        if file.write(line) != len(line):
            raise OSError(errno.ENOSPC, "a part of a line was written")
    except OSError as error:
        raise machine_error(error, path, len(line)) from error
