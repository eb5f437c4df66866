"""Model folders on disk, as Hugging Face lays them out: config.json and safetensors.

A folder is written file by file, each aside, synced and then renamed, config.json last: a reader
sees whole files only. Pickled weights are never read: unpickling runs whatever the file says.
"""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from torch import Tensor

from endonym.core.errors import DataError, MachineError, StoreError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class CausalLM(Protocol):
    """What training, sampling and evaluation ask of a language model, ours or transformers'."""

    config: Any
    """At least vocab_size and hidden_size."""

    def __call__(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: Any = None,
    ) -> Tensor:
        """Hidden states [B, T, D], after the final norm, of tokens [B, T]."""

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., V] of hidden states [..., D]: hidden times head, then the cap, nothing else."""

    @property
    def head(self) -> Tensor:
        """[V, D]."""

    @property
    def cap(self) -> float | None:
        """c, where logits z are turned into c tanh(z / c) (Gemma 2); losses on hidden states ask."""

    def new_cache(self, rows: int, capacity: int) -> Any:
        """An empty cache for `rows` sequences of at most `capacity` tokens."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from `path`."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            "a model folder lacks a file",
            where=path,
            wanted="a Hugging Face folder with config.json and safetensors",
            got=_listing(path.parent),
            do="give the folder that holds config.json",
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError("a file is not JSON", where=path, got=str(error)) from None
    if not isinstance(found, dict):
        raise DataError("a file is not a JSON object", where=path, got=type(found).__name__)
    return found


def weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or the shards that the index names: files of the folder, all of them exist."""
    if (folder / INDEX).exists():
        shards = read_json(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict):
            raise DataError("the index has no weight_map", where=folder / INDEX, got=type(shards))
        for tensor, shard in shards.items():
            _check_shard(tensor, shard, folder / INDEX)
        files = sorted({folder / shard for shard in shards.values()})
    else:
        files = [folder / SINGLE]
    missing = [file for file in files if not file.exists()]
    if missing:
        pickled = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
        if pickled:
            raise DataError(
                "the weights are pickled, and reading a pickle runs code of its author",
                where=pickled[0],
                wanted=SINGLE,
                do=f"endonym convert {folder} --out DIR",
            )
        raise DataError("weights are missing", where=missing[0], got=_listing(folder))
    return files


def _check_shard(tensor: str, shard: object, index: Path) -> None:
    """A name with a path in it leads elsewhere, and what is no safetensors would be unpickled."""
    if not isinstance(shard, str) or shard in ("", ".", "..") or {*"/\\\0"} & {*shard}:
        raise DataError(
            f"the index names a file outside its folder for {tensor}",
            where=index,
            wanted="the name of a file in the folder",
            got=repr(shard),
        )
    if not shard.endswith(".safetensors"):
        raise DataError(
            f"the index names a file for {tensor} that is no safetensors, maybe a pickle",
            where=index,
            wanted="NAME.safetensors",
            got=repr(shard),
        )


def write_json(path: Path, content: dict[str, Any]) -> None:
    """One JSON file, keys in the order given."""
    text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    write_aside(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """`path` as `write` makes it, or as it was before."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(aside)
        _sync(aside)
        os.replace(aside, path)
        _sync(path.parent)
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        kind = MachineError if full else StoreError
        raise kind(
            "a file could not be written; what stood there before still stands",
            where=path,
            got=str(error),
            do="free some space" if full else None,
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _listing(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    return ", ".join(sorted(each.name for each in folder.iterdir())[:12]) or "an empty folder"
