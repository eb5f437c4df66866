"""The files of one plain token store: mapped, and compared with what was written.

    meta.json        counts, names, identity, and size, sha256 and time of change of every other file
    ids.bin          uint32 [tokens]
    offsets.npy      int64 [N + 1], where each sequence begins
    weights.bin      float16 [tokens], of conversations: 0 = read, not learnt
    scores.npy       float32 [K, N], one line per name in meta["scores"]; nan = has none
    languages.npy    int16 [N], places in meta["languages"]; sources.npy likewise

Damage. Opening compares every file's size; the content is read and hashed where the time of change is
not the recorded one, as for artifacts (core/artifact.py): a file that was copied, cut off, exchanged
or written to is found when a run starts, at no cost where nothing happened. What no time of change
tells, a bit lost by the disk, is found by comparing in full, which reads everything. Either is a
DataError that names the file.
"""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from endonym.core.artifact import describe_files, flush, sha256_file
from endonym.core.errors import DataError

FORMAT = 3  # 2: a conversation may make several sequences; 3: weights, scores, languages, sources


class Labels(NamedTuple):
    """A name for each sequence: names[codes[n]]."""

    names: list[str]
    codes: np.ndarray


class Shard:
    """One plain store's files, mapped. Sequence n is ids[offsets[n] : offsets[n + 1]]."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.meta = read_meta(folder)
        if "files" not in self.meta:
            raise damaged(folder / "meta.json", f"a store of format {FORMAT}", "another")
        compare(folder, self.meta["files"], full=False)
        self.offsets = _loaded(folder / "offsets.npy")
        self.ids = mapped(folder / "ids.bin", np.uint32)
        weights = folder / "weights.bin"
        self.weights = mapped(weights, np.float16) if weights.name in self.meta["files"] else None
        self.scores = dict(zip(self.meta["scores"], _loaded(folder / "scores.npy")))
        self.languages = Labels(self.meta["languages"], _loaded(folder / "languages.npy"))
        self.sources = Labels(self.meta["sources"], _loaded(folder / "sources.npy"))
        if len(self.ids) != self.meta["tokens"] or len(self) != self.meta["sequences"]:
            raise damaged(folder, f"{self.meta['tokens']} tokens", len(self.ids))

    def __len__(self) -> int:
        return len(self.offsets) - 1


def read_meta(folder: Path) -> dict[str, Any]:
    file = folder / "meta.json"
    try:
        meta = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise damaged(file, "a file", "none") from None
    except ValueError as error:
        raise damaged(file, "JSON", error) from None
    return meta


def write_meta(folder: Path, meta: dict[str, Any]) -> None:
    """meta.json, on the disk before anything is renamed."""
    aside = folder / "meta.json.partial"
    aside.write_text(json.dumps(meta, indent=1, ensure_ascii=False), encoding="utf-8")
    flush(aside)
    os.replace(aside, folder / "meta.json")
    flush(folder)


def built(folder: Path, identity: str, write: Callable[[Path], dict[str, Any]]) -> None:
    """The store of this identity at `folder`. One that stands there is left as it is, and any other is
    replaced by the files that write(folder) makes, with what it says of them in meta.json. It is written
    beside and renamed, so a kill leaves no half store."""
    if (folder / "meta.json").is_file() and read_meta(folder).get("identity") == identity:
        return
    aside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    meta = write(aside) | {"identity": identity}
    write_meta(aside, meta | {"files": describe_files(aside)})
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def compare(folder: Path, files: dict[str, dict[str, Any]], *, full: bool) -> None:
    """Sizes always; hashes where `full`, or where the time of change is not the recorded one."""
    for name, wanted in files.items():
        file = folder / name
        try:
            status = file.stat()
        except FileNotFoundError:
            raise damaged(file, f"{wanted['bytes']} bytes", "no such file") from None
        if status.st_size != wanted["bytes"]:
            raise damaged(file, f"{wanted['bytes']} bytes", f"{status.st_size} bytes")
        if not full and status.st_mtime_ns == wanted["mtime_ns"]:
            continue
        found = sha256_file(file)
        if found != wanted["sha256"]:
            raise damaged(file, f"sha256 {wanted['sha256']}", f"sha256 {found}")
        with suppress(OSError):  # a folder that cannot be written to is read again the next time
            os.utime(file, ns=(status.st_atime_ns, wanted["mtime_ns"]))


def compare_meta(shard: Path, wanted: str) -> None:
    file = shard / "meta.json"
    if not file.is_file():
        raise damaged(file, "a shard of this store", "no such file")
    if (found := sha256_file(file)) != wanted:
        raise damaged(file, f"sha256 {wanted}", f"sha256 {found}")


def damaged(where: Path, wanted: object, got: object) -> DataError:
    return DataError(
        "a token store is not as it was written",
        where=where,
        wanted=wanted,
        got=got,
        do="delete the store's folder; it is built again from the data",
    )


def mapped(file: Path, dtype: type) -> np.ndarray:
    """A read-only memory map; an empty file cannot be mapped and is an empty array."""
    if file.stat().st_size == 0:
        return np.empty(0, dtype)
    return np.memmap(file, dtype=dtype, mode="r")


def _loaded(file: Path) -> np.ndarray:
    """A .npy file, mapped; one without values is read."""
    try:
        array = np.load(file, mmap_mode="r")
    except ValueError:  # an empty array cannot be mapped
        array = np.load(file)
    return array
