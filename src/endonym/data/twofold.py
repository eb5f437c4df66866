"""Rows of two sequences each, as ids on disk: a prompt and its answer, a chosen side and a rejected one.

ids.bin          uint32 [tokens], row n's first sequence, then its second
offsets.npy      int64 [2 N + 1], where each sequence begins
languages.npy    int32 [N], places in meta["languages"]; sources.npy likewise
meta.json        as data/shard.py
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from endonym.data.shard import Labels, compare, mapped, read_meta


class Twofold:
    """The rows of a folder, memory-mapped."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.meta = read_meta(self.folder)
        compare(self.folder, self.meta["files"], full=False)
        self.offsets = np.load(self.folder / "offsets.npy")
        self.ids = mapped(self.folder / "ids.bin", np.uint32)
        self.languages, self.sources = (
            Labels(self.meta[name], np.load(self.folder / f"{name}.npy"))
            for name in ("languages", "sources")
        )

    def __len__(self) -> int:
        return len(self.offsets) // 2

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def identity(self) -> str:
        return self.meta["identity"]

    def both(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids of a row's two sequences."""
        begin, middle, end = self.offsets[2 * number : 2 * number + 3]
        return self.ids[begin:middle], self.ids[middle:end]


def write(folder: Path, rows: Iterable[tuple[Sequence[Sequence[int]], str, str]]) -> dict[str, Any]:
    """The files of rows ((first, second), language, source), but for meta.json; what it must say of them."""
    lengths: list[int] = []
    names: dict[str, dict[str, int]] = {"languages": {}, "sources": {}}
    codes: dict[str, list[int]] = {"languages": [], "sources": []}
    with (folder / "ids.bin").open("wb") as file:
        for both, *labels in rows:
            for ids in both:
                file.write(np.asarray(ids, np.uint32).tobytes())
                lengths.append(len(ids))
            for name, label in zip(names, labels, strict=True):
                codes[name].append(names[name].setdefault(label, len(names[name])))
    np.save(folder / "offsets.npy", np.cumsum([0, *lengths], dtype=np.int64))
    for name, numbers in codes.items():
        np.save(folder / f"{name}.npy", np.asarray(numbers, np.int32))
    return {"tokens": sum(lengths), **{name: list(found) for name, found in names.items()}}
