"""Weights too large to hold: a folder's safetensors read and written tensor by tensor, piece by piece.

The safetensors library checks a file (header, overlaps, holes, length) when it is opened; after that
a tensor is a stretch of the file, and the stretch is read into a buffer of its own. So what is
resident is what was asked for, not what a memory map has touched.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from endonym.core.errors import DataError, MachineError, StoreError
from endonym.model.checkpoint import INDEX, SINGLE, read_json, weight_files, write_json

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""What can be computed with and so be merged. (Eight-bit floats mean nothing without their scales.)"""

NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    """Its first byte in the file."""

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


class Shards:
    """The tensors of a model folder by name, none of them read yet.

    Every shard that the index names is opened once and checked; a tensor that the index puts into a
    shard and that is not there, or a shard that is not a file of the folder, is a DataError by name.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._open: dict[Path, BinaryIO] = {}
        found = {file: _header(file) for file in weight_files(self.folder)}
        indexed: dict[str, str] | None = None
        if (self.folder / INDEX).exists():
            indexed = read_json(self.folder / INDEX)["weight_map"]
        self.entries: dict[str, Entry] = {}
        for file, header in found.items():
            for name, entry in header.items():
                if indexed is None or indexed.get(name) == file.name:
                    self.entries[name] = entry
        if indexed is not None and (lost := indexed.keys() - self.entries.keys()):
            name = min(lost)
            raise DataError(
                f"the index names a tensor that is not in its shard: {name}",
                where=self.folder / indexed[name],
                got=f"{len(lost)} such tensors",
                do="copy or download the folder again",
            )

    def read(self, name: str) -> Tensor:
        """A whole tensor."""
        entry = self.entries[name]
        return self._stretch(entry, 0, entry.elements).view(entry.shape)

    def pieces(self, name: str, elements: int) -> Iterator[Tensor]:
        """A tensor as flat pieces of at most `elements`, in order; each is a buffer of its own."""
        entry = self.entries[name]
        for start in range(0, entry.elements, elements):
            yield self._stretch(entry, start, min(elements, entry.elements - start))

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()

    def _stretch(self, entry: Entry, start: int, count: int) -> Tensor:
        out = torch.empty(count, dtype=entry.dtype)
        if not count:
            return out
        if entry.file not in self._open:
            self._open[entry.file] = entry.file.open("rb", buffering=0)
        file, left = self._open[entry.file], memoryview(out.view(torch.uint8).numpy())
        file.seek(entry.start + start * entry.dtype.itemsize)
        while left:
            read = file.readinto(left)
            if not read:
                raise DataError("a shard became shorter while it was read", where=entry.file)
            left = left[read:]
        return out


@dataclass(frozen=True)
class Planned:
    """A tensor to be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def lay_out(tensors: Sequence[Planned], shard_bytes: int) -> list[list[Planned]]:
    """Shards of at most `shard_bytes` (a larger tensor has one for itself), tensors in the order given.

    Within a shard wide types come first, as the safetensors library lays them: all stay aligned.
    """
    shards: list[list[Planned]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.bytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.bytes
    return [sorted(shard, key=lambda each: -each.dtype.itemsize) for shard in shards]


def write_shards(
    folder: Path, shards: Sequence[Sequence[Planned]], values: Iterable[Iterable[Tensor]]
) -> None:
    """The shards and, if there are several, their index.

    values: for each tensor, in the order of the shards, its elements as consecutive pieces of its own
    dtype. Nothing is held longer than it takes to write it. A tensor with too few or too many
    elements is an assertion: the plan and the values come from the same hand.
    """
    values, weight_map = iter(values), {}
    for number, shard in enumerate(shards, 1):
        name = SINGLE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        weight_map.update({tensor.name: name for tensor in shard})
        try:
            with (folder / name).open("wb", buffering=0) as file:
                _write(file, _header_of(shard))
                for tensor in shard:
                    _write_tensor(file, tensor, next(values))
                os.fsync(file.fileno())
        except OSError as error:
            kind = MachineError if "No space left" in str(error) else StoreError
            raise kind("a shard could not be written", where=folder / name, got=error) from error
    if len(shards) > 1:
        total = sum(tensor.bytes for shard in shards for tensor in shard)
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _write_tensor(file: BinaryIO, tensor: Planned, pieces: Iterable[Tensor]) -> None:
    written = 0
    for piece in pieces:
        assert piece.dtype == tensor.dtype, f"{tensor.name}: {piece.dtype} for {tensor.dtype}"
        flat = piece.contiguous().view(-1)
        if flat.numel():
            _write(file, memoryview(flat.view(torch.uint8).numpy()))
        written += flat.numel()
    assert written == math.prod(tensor.shape), f"{tensor.name}: {written} for {tensor.shape}"


def _write(file: BinaryIO, what: bytes | memoryview) -> None:
    left = memoryview(what)
    while left:
        left = left[file.write(left) :]


def _header_of(shard: Sequence[Planned]) -> bytes:
    """Length (8 bytes, little-endian) and JSON, padded with spaces so that the data starts aligned."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in shard:
        header[tensor.name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.bytes],
        }
        at += tensor.bytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _header(file: Path) -> dict[str, Entry]:
    """The tensors of one safetensors file, after the library has found the file sound."""
    try:
        with safe_open(file, framework="numpy"):
            pass
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(size))
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(
            "a safetensors file cannot be read: it is damaged, cut short or lies about its tensors",
            where=file,
            got=error,
            do="copy or download it again",
        ) from None
    header.pop("__metadata__", None)
    entries = {}
    for name, each in header.items():
        if each["dtype"] not in DTYPES:
            raise DataError(
                f"{name} is of a type that cannot be computed with",
                where=file,
                wanted=", ".join(DTYPES),
                got=each["dtype"],
                do="give the weights before they were quantised",
            )
        start = 8 + size + each["data_offsets"][0]
        entries[name] = Entry(file, DTYPES[each["dtype"]], tuple(each["shape"]), start)
    return entries
