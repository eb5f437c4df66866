"""An artifact: a folder in a format other tools read, with record.json written last.

The record says what made it (stage, version, literals, inputs), what it consists of (files with
sha256), under which licences, in what environment, and the figures worth quoting. A folder without
a record is not an artifact.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endonym.core.errors import MachineError, StoreError

RECORD = "record.json"
RECORD_FORMAT = 1


@dataclass(frozen=True)
class Artifact:
    """A finished folder and its record."""

    path: Path
    record: dict[str, Any]

    @property
    def address(self) -> str:
        return self.record["address"]

    @property
    def kind(self) -> str:
        return self.record["kind"]

    @property
    def figures(self) -> dict[str, Any]:
        return self.record["figures"]

    def file(self, name: str) -> Path:
        """The path of a file that the record lists. StoreError if it lists none of that name."""
        if name not in self.record["files"]:
            raise StoreError(
                f"the artifact has no file {name!r}",
                where=self.path,
                got=", ".join(sorted(self.record["files"])),
            )
        return self.path / name


def read_artifact(path: Path) -> Artifact:
    """The artifact at `path`, its files compared with the record by size and time of change.

    Where a time differs (a copy, another file system) the bytes decide. StoreError names the file.
    """
    artifact = Artifact(path, _read_record(path))
    verify(artifact, full=False)
    return artifact


def verify(artifact: Artifact, *, full: bool) -> int:
    """Compare every file with the record; the number of bytes hashed. StoreError at the first that differs.

    full=False trusts a file whose size and time of change are the recorded ones.
    """
    hashed = 0
    for name, wanted in artifact.record["files"].items():
        file = artifact.path / name
        try:
            status = file.stat()
        except FileNotFoundError:
            raise _damaged(artifact, name, f"{wanted['bytes']} bytes", "no such file") from None
        if status.st_size != wanted["bytes"]:
            raise _damaged(artifact, name, f"{wanted['bytes']} bytes", f"{status.st_size} bytes")
        if not full and status.st_mtime_ns == wanted["mtime_ns"]:
            continue
        found = sha256_file(file)
        hashed += status.st_size
        if found != wanted["sha256"]:
            raise _damaged(artifact, name, f"sha256 {wanted['sha256']}", f"sha256 {found}")
        if status.st_mtime_ns != wanted["mtime_ns"]:
            os.utime(
                file, ns=(status.st_atime_ns, wanted["mtime_ns"])
            )  # the next look is cheap again
    return hashed


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """name -> sha256, bytes, mtime_ns of every file below `folder`, each flushed to the disk first."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        flush(path)
        status = path.stat()
        files[path.relative_to(folder).as_posix()] = {
            "sha256": sha256_file(path),
            "bytes": status.st_size,
            "mtime_ns": status.st_mtime_ns,
        }
    return files


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a reader, or a power cut, sees the old bytes or the new, never a part.

    MachineError when the disk is full; the old file is then as it was.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise machine_error(error, path, len(data)) from error
    flush(path.parent)


def write_json(path: Path, value: Any) -> None:
    """write_atomic of readable JSON."""
    write_atomic(path, (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())


def flush(path: Path) -> None:
    """Ask the operating system to put a file, or a folder's list of names, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def machine_error(error: OSError, path: Path, needed: int | None = None) -> MachineError:
    """An OSError of writing, told with the bytes that were needed and those that are free."""
    import shutil

    folder = path if path.is_dir() else path.parent
    free = shutil.disk_usage(folder).free if folder.is_dir() else None
    return MachineError(
        f"writing failed: {error.strerror or error}",
        where=path,
        wanted=None if needed is None else f"{needed} bytes",
        got=None if free is None else f"{free} bytes free",
        do="make room (or choose another --store) and run the same command again; "
        "what was finished is kept",
    )


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads((path / RECORD).read_bytes())
    except FileNotFoundError:
        raise StoreError(
            "this folder is not an artifact",
            where=path,
            wanted=f"a {RECORD}, written when a stage finished",
            got="none" if path.is_dir() else "no such folder",
        ) from None
    except ValueError as error:
        raise StoreError(
            "the record cannot be read",
            where=path / RECORD,
            got=str(error),
            do=f"delete the folder {path} and run again; the stage is made anew",
        ) from None
    if record.get("format") != RECORD_FORMAT:
        raise StoreError(
            "the record is of another format",
            where=path / RECORD,
            wanted=RECORD_FORMAT,
            got=record.get("format"),
            do="read it with the release that wrote it, or delete the folder and run again",
        )
    return record


def _damaged(artifact: Artifact, name: str, wanted: str, got: str) -> StoreError:
    return StoreError(
        "a file of an artifact is not what its record says",
        where=artifact.path / name,
        wanted=wanted,
        got=got,
        do=f"restore the file, or delete the folder {artifact.path} and run again: "
        "the stage is then made anew",
    )
