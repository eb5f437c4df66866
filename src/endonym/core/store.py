"""The store: finished artifacts by address, unfinished work beside them, never one for the other.

    ROOT/artifacts/STAGE-ADDRESS/    finished: renamed into place in one step, record included
    ROOT/making/ADDRESS/             unfinished: a stage's output so far and its checkpoints
    ROOT/runs/RECIPE-SCALE/          what a recipe's names stand for now: links and the report
    ROOT/digests.json                sha256 of outside files by path, size and time of change

A stage writes into making/. When it is done every file is flushed and hashed, the record is written,
and the folder is renamed: a kill at any moment leaves either nothing or a whole artifact. One lock an
address (held by the process, so it goes with it) keeps two runs from making the same thing at once.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from endonym.core.artifact import (
    RECORD,
    RECORD_FORMAT,
    Artifact,
    describe_files,
    flush,
    machine_error,
    read_artifact,
    sha256_file,
    write_json,
)
from endonym.core.errors import DataError, StoreError
from endonym.core.lock import locked

SHOWN = 16  # hexadecimal digits of an address in a folder's name; the record holds all 64


class Store:
    """Artifacts under one folder. Opening makes the folder if it is not there."""

    def __init__(self, root: Path):
        self.root = root
        try:
            for name in ("artifacts", "making", "runs"):
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise machine_error(error, root) from error

    def place(self, stage: str, address: str) -> Path:
        """Where the artifact of this address stands once it is finished."""
        return self.root / "artifacts" / f"{stage}-{address[:SHOWN]}"

    def find(self, stage: str, address: str) -> Artifact | None:
        """The finished artifact, checked cheaply, or None. StoreError if it is damaged."""
        path = self.place(stage, address)
        if not path.exists():
            return None
        artifact = read_artifact(path)
        if artifact.address != address:
            raise StoreError(
                "two addresses share a folder name",
                where=path,
                wanted=address,
                got=artifact.address,
            )
        return artifact

    def all(self, stage: str | None = None) -> list[Artifact]:
        """Every artifact that can be read (of one stage, if named); damaged ones are passed over."""
        found = []
        for path in sorted((self.root / "artifacts").iterdir()):
            try:
                artifact = read_artifact(path)
            except StoreError:
                continue
            if stage is None or artifact.record["stage"] == stage:
                found.append(artifact)
        return found

    @contextmanager
    def making(self, address: str) -> Iterator[Path]:
        """The work folder of an address, held by this process alone. StoreError if another holds it."""
        work = self.root / "making" / address[:SHOWN]
        work.mkdir(parents=True, exist_ok=True)
        with locked(
            work / "lock",
            "another run is making this artifact",
            "wait for it, or stop it and run again; what it finished is used",
        ):
            yield work

    def publish(self, out: Path, record: dict[str, Any]) -> Artifact:
        """Make the folder `out` the artifact that `record` describes: flush, hash, record last, rename."""
        target = self.place(record["stage"], record["address"])
        try:
            (out / RECORD).unlink(missing_ok=True)
            files = describe_files(out)
            whole = {"format": RECORD_FORMAT, **record, "files": files}
            write_json(out / RECORD, whole)
            for folder in [out, *(p for p in out.rglob("*") if p.is_dir())]:
                flush(folder)
            os.rename(out, target)
            flush(target.parent)
        except OSError as error:
            raise machine_error(error, target) from error
        return Artifact(target, whole)

    def clear_work(self, address: str) -> None:
        """Drop the unfinished work of an address that has been published."""
        shutil.rmtree(self.root / "making" / address[:SHOWN], ignore_errors=True)

    def by_prefix(self, prefix: str) -> list[Artifact]:
        """Artifacts whose address, or folder name, begins with `prefix`."""
        return [
            a for a in self.all() if a.address.startswith(prefix) or a.path.name.startswith(prefix)
        ]

    def digest(self, path: Path) -> str:
        """sha256 of a file, or of the sorted names and hashes of a folder's files or of those that a
        pattern matches; remembered by size and time."""
        if path.is_dir():
            return self._digest_of(sorted(p for p in path.rglob("*") if p.is_file()), path)
        if found := matches(path):
            fixed = next(folder for folder in path.parents if not has_magic(str(folder)))
            return self._digest_of(found, fixed)
        try:
            status = path.stat()
        except OSError as error:
            raise DataError("a file cannot be read", where=path, got=error.strerror) from None
        stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
        known = self._digests()
        seen = known.get(str(path.resolve()))
        if seen and seen[:3] == stamp:
            return seen[3]
        found = sha256_file(path)
        known[str(path.resolve())] = [*stamp, found]
        write_json(self.root / "digests.json", known)
        return found

    def _digest_of(self, files: list[Path], folder: Path) -> str:
        rows = [f"{p.relative_to(folder).as_posix()}\0{self.digest(p)}\n" for p in files]
        return hashlib.sha256("".join(rows).encode()).hexdigest()

    def _digests(self) -> dict[str, list[Any]]:
        try:
            return json.loads((self.root / "digests.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}  # only a memory: what is lost is hashed again


def matches(path: Path) -> list[Path]:
    """The files that a pattern with *, ? or [] means, sorted; none where `path` is no pattern or is a
    file of that very name."""
    if not has_magic(str(path)) or path.exists():
        return []
    return sorted(p for p in map(Path, glob(str(path), recursive=True)) if p.is_file())
