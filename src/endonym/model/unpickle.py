"""Pickled checkpoints made safetensors, when somebody asks for it; nothing else here opens a pickle.

A pickle is a program. torch's restricted unpickler builds tensors and plain containers and refuses
every other name in it, so the program cannot call anything; a file that needs more is refused with the
name that it asked for.
"""

import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from endonym.core.errors import DataError
from endonym.model.checkpoint import read_json
from endonym.model.shards import Planned, lay_out, write_shards

INDEX = "pytorch_model.bin.index.json"
KEPT = ("*.json", "*.txt", "*.jinja", "tokenizer.model", "*.tiktoken", "LICENSE*", "README.md")
"""What goes along as it is. No Python, no other weights."""


def convert(folder: str | Path, out: str | Path, *, shard_bytes: int = 5 * 10**9) -> dict[str, int]:
    """The folder `out`: safetensors out of pytorch_model.bin (or its shards), other files copied.

    Tensors that share memory (a tied head) are written each for itself. `out` appears whole or not at
    all and must not hold anything before. Figures: tensors, bytes, files. DataError where the folder has
    no pickled weights, where a file holds anything but tensors by name, or a tensor stands in two files.
    """
    folder, out = Path(folder), Path(out).absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError("the folder to write is not empty", where=out, do="name another")
    files = _files(folder)
    seen: dict[str, Path] = {}
    planned: list[Planned] = []
    for file in files:
        for name, tensor in _tensors(file).items():
            if name in seen:
                raise DataError(
                    f"{name} stands in two files", where=file, got=f"{seen[name].name} too"
                )
            seen[name] = file
            planned.append(Planned(name, tensor.dtype, tuple(tensor.shape)))
    shards = lay_out(planned, shard_bytes)
    aside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        for pattern in KEPT:
            for file in folder.glob(pattern):
                if file.name != INDEX and file.is_file():
                    shutil.copyfile(file, aside / file.name)
        write_shards(aside, shards, _values([t for shard in shards for t in shard], seen))
        if out.exists():
            out.rmdir()
        aside.replace(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return {
        "tensors": len(planned),
        "bytes": sum(tensor.bytes for tensor in planned),
        "files": len(shards),
    }


def _files(folder: Path) -> list[Path]:
    """pytorch_model.bin, the shards that its index names, or the folder's only pickle."""
    if (folder / INDEX).is_file():
        names = sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))
        files = [folder / name for name in names]
        for file in files:
            if file.resolve().parent != folder.resolve() or not file.is_file():
                raise DataError("the index names a file that is not in the folder", where=file)
        return files
    found = sorted(p for end in ("bin", "pt", "pth") for p in folder.glob(f"*.{end}"))
    named = [p for p in found if p.name == "pytorch_model.bin"] or found
    if len(named) != 1:
        raise DataError(
            "there are no pickled weights to convert" if not named else "which of these files?",
            where=folder,
            wanted=f"pytorch_model.bin, or shards with {INDEX}",
            got=", ".join(p.name for p in named) or "none",
        )
    return named


def _tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, mapped, not read; {"state_dict": ...} round them is opened."""
    try:
        found: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise DataError(
            "the file holds more than tensors, or is damaged",
            where=file,
            wanted="a dictionary of tensors saved by torch.save (1.6 or newer)",
            got=str(error).strip().splitlines()[0][:300],
            do="where you trust its author, convert it with the program that made it",
        ) from None
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(each, Tensor) for name, each in found.items()
    ):
        raise DataError(
            "the file is no dictionary of tensors", where=file, got=type(found).__name__
        )
    return found


def _values(planned: list[Planned], where: dict[str, Path]) -> Iterator[list[Tensor]]:
    """Each tensor's elements; one file is open at a time as long as shards follow the files."""
    current: Path | None = None
    tensors: dict[str, Tensor] = {}
    for one in planned:
        if where[one.name] != current:
            current = where[one.name]
            tensors = _tensors(current)
        yield [tensors[one.name].contiguous()]
