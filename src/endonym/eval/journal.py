"""Finished work on the disk, batch by batch, so that a killed evaluation goes on where it was.

A journal begins with a line that says what is asked and how; then come the rows, one batch in one write,
which ends with a line "done". What follows the last whole batch is cut off when an evaluation goes on, so
a kill loses one batch at most and no row stands twice.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

from endonym.core.artifact import flush, machine_error

Row = TypeVar("Row")


class Journal(Generic[Row]):
    """Rows of one dataclass. Opening it reads those of the same evaluation, and drops any other.

    identity: what the work must be to be gone on with, one string
    rows:     those that were there when it was opened
    """

    def __init__(self, path: Path, identity: str, kind: type[Row]):
        self.path, self.kind, self.rows = path, kind, []
        path.parent.mkdir(parents=True, exist_ok=True)
        first = json.dumps({"journal": identity}) + "\n"
        kept = self._read(first) if path.exists() else 0
        try:
            self._file = open(path, "r+b" if path.exists() else "w+b", buffering=0)  # noqa: SIM115
            self._file.truncate(kept)
            self._file.seek(kept)
            if not kept:
                self._write(first.encode())
                flush(path.parent)
        except OSError as error:
            raise machine_error(error, path, len(first)) from error

    def __enter__(self) -> "Journal[Row]":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._file.close()

    def append(self, rows: Sequence[Row]) -> None:
        """A batch, on the disk when this returns. MachineError where the disk is full."""
        lines = [json.dumps(asdict(row), ensure_ascii=False) for row in rows]
        lines.append(json.dumps({"done": len(rows)}))
        data = ("\n".join(lines) + "\n").encode()
        try:
            self._write(data)
        except OSError as error:
            raise machine_error(error, self.path, len(data)) from error

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        os.fsync(self._file.fileno())

    def _read(self, first: str) -> int:
        """Takes the whole batches into self.rows; the number of bytes that stay."""
        data = self.path.read_bytes()
        if not data.startswith(first.encode()):
            return 0
        kept = at = len(first.encode())
        batch: list[Row] = []
        for line in data[at:].splitlines(keepends=True):
            at += len(line)
            entry = _parsed(line)
            if entry is None:
                break
            if "done" not in entry:
                batch.append(self.kind(**entry))
                continue
            if entry["done"] != len(batch):
                break
            self.rows += batch
            batch, kept = [], at
        return kept


def _parsed(line: bytes) -> dict[str, Any] | None:
    """An entry of the journal; None where the line was torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        return json.loads(line)
    except ValueError:
        return None
