"""The manifest of a checkpoint: what it says, and whether the files beside it are still what it says.

A bit flipped in the payload of a safetensors file loads without a word, so every file is read against its
hash on resume, and so is the manifest itself.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from endonym.core.artifact import sha256_file
from endonym.core.errors import StoreError

MANIFEST = "manifest.json"

FORMAT = 2
"""Of the manifest. 1, which did not say so: one process, one file, without extras; it still loads."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands between two steps.

    step:           steps done; the next one is loader.rows(step)
    tokens:         trained tokens, padding not counted
    skipped:        steps without an update because loss or gradient was not finite
    bad_in_row:     how many of these stand at the end, one after another
    seconds:        time spent in steps, over all attempts of the run
    metrics_bytes:  length of metrics.jsonl, and
    metrics_sha256: the hash of these bytes
    extra:          what else the loop must know again, as JSON
    """

    step: int = 0
    tokens: int = 0
    skipped: int = 0
    bad_in_row: int = 0
    seconds: float = 0.0
    metrics_bytes: int = 0
    metrics_sha256: str = hashlib.sha256().hexdigest()
    extra: dict[str, Any] = field(default_factory=dict)


def verify(folder: Path, reader: int = 0, readers: int = 1) -> dict[str, Any]:
    """The manifest of a checkpoint whose every byte is what it was. StoreError names the bad file.

    Of several readers each reads its share of the files.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        stated = manifest.pop("sha256")
        files = dict(manifest["files"])
    except FileNotFoundError:
        raise StoreError("a file is missing", where=path) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError("the manifest cannot be read", where=path, got=error) from None
    if stated != sha256_of(manifest):
        raise StoreError("the manifest was changed after it was written", where=path)
    if manifest.get("format", 1) > FORMAT:
        raise StoreError(
            "the checkpoint was written by a later release",
            where=path,
            wanted=f"format {FORMAT} or earlier",
            got=f"format {manifest['format']}",
        )
    for name, expected in sorted(files.items())[reader::readers]:
        file = folder / name
        if not file.exists():
            raise StoreError("a file is missing", where=file)
        if file.stat().st_size != expected["bytes"]:
            raise StoreError(
                "a file has another length",
                where=file,
                wanted=f"{expected['bytes']} bytes",
                got=f"{file.stat().st_size} bytes",
            )
        found = sha256_file(file)
        if found != expected["sha256"]:
            raise StoreError(
                "a file's bytes have changed", where=file, wanted=expected["sha256"], got=found
            )
    return manifest


def verify_log(metrics: Path, progress: Progress) -> None:
    """The log's beginning is what it was when the checkpoint was written; what follows may go."""
    digest = hashlib.sha256()
    left = progress.metrics_bytes
    if metrics.exists():
        with open(metrics, "rb") as file:
            while left and (block := file.read(min(left, 1 << 20))):
                digest.update(block)
                left -= len(block)
    if left or digest.hexdigest() != progress.metrics_sha256:
        raise StoreError(
            "the metrics log does not contain what the checkpoint has seen",
            where=metrics,
            wanted=f"{progress.metrics_bytes} bytes with sha256 {progress.metrics_sha256}",
            got=f"{progress.metrics_bytes - left} bytes with sha256 {digest.hexdigest()}",
        )


def entry(path: Path) -> dict[str, Any]:
    """What the manifest says of a file."""
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


def sha256_of(value: Any) -> str:
    """Of a JSON value, however its keys are ordered."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def apart(one: Any, other: Any) -> Any:
    """What of `one` is not so in `other`, key by key."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return one
    missing = object()
    return {
        key: apart(value, other.get(key, missing))
        for key, value in one.items()
        if other.get(key, missing) != value
    } or "nothing of it"
