"""A teacher's hidden states on disk: what a student can learn from without the teacher.

    states-00000.bin ...   [tokens, D] float32, or bfloat16, of the answers' predictions, shard by shard
    keys.npy               uint8 [N, 16]: names each prompt and answer (rollouts/asked.digests)
    too_long.npy           uint8 [M, 16]: and those that were left out for their length
    places.npy             int64 [N, 3]: shard, first token in it, tokens
    head.safetensors       "head" [V, D] float32, as in the teacher
    states.json            width, dtype, cap, shards, the teacher's address, its tokenizer's identity
    tokenizer.json ...     the teacher's tokenizer, by which ids are compared

A token takes 4 D bytes (2 D in bfloat16), where its logits would take 4 V: 74 times as much at D = 2,048
and V = 152k.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from endonym.core.artifact import flush, machine_error, write_json
from endonym.core.errors import DataError
from endonym.rollouts.asked import digests

KINDS = {"float32": (torch.float32, np.float32), "bfloat16": (torch.bfloat16, np.int16)}


class States:
    """The states of a folder, mapped."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.meta: dict[str, Any] = json.loads((self.folder / "states.json").read_bytes())
        self.width, self.cap = self.meta["width"], self.meta["cap"]
        keys = np.load(self.folder / "keys.npy")
        self._at = {key.tobytes(): n for n, key in enumerate(keys)}
        self._too_long = {key.tobytes() for key in np.load(self.folder / "too_long.npy")}
        self._places = np.load(self.folder / "places.npy")
        self._dtype, kind = KINDS[self.meta["dtype"]]
        files = [self.folder / shard_name(n) for n in range(self.meta["shards"])]
        self._shards = [np.memmap(file, kind, mode="r").reshape(-1, self.width) for file in files]

    def __len__(self) -> int:
        return len(self._places)

    def head(self) -> Tensor:
        """[V, D]."""
        return load_file(self.folder / "head.safetensors")["head"]

    def of(self, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
        """States [A, D] that predict the tokens of an answer; DataError where they are not here."""
        key = digests([(prompt, answer)])[0].tobytes()
        if key not in self._at:
            raise self._missing(prompt, answer)
        number = self._at[key]
        shard, first, count = self._places[number]
        part = torch.from_numpy(np.array(self._shards[shard][first : first + count]))
        return part.view(self._dtype) if self._dtype == torch.bfloat16 else part

    def has(self, prompt: Sequence[int], answer: Sequence[int]) -> bool:
        """Whether an answer's states are here; False where it was too long or empty, DataError where it is of
        other conversations."""
        if not len(answer):
            return False
        key = digests([(prompt, answer)])[0].tobytes()
        if key not in self._at and key not in self._too_long:
            raise self._missing(prompt, answer)
        return key in self._at

    def _missing(self, prompt: Sequence[int], answer: Sequence[int]) -> DataError:
        return DataError(
            "the states of a row were not kept",
            where=self.folder,
            wanted=f"the states of {len(answer)} tokens after a prompt of {len(prompt)}",
            got=f"{len(self)} other rows",
            do="make the states of the same conversations with the same template",
        )


SHARD_BYTES = 1 << 30
"""A shard is closed when it holds so many. What is finished of a cache that was cut off is kept by whole
shards."""


def write(
    folder: Path,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    states: Callable[[range], list[Tensor]],
    head: Tensor,
    dtype: str,
    about: dict[str, Any],
    *,
    too_long: Sequence[tuple[Sequence[int], Sequence[int]]] = (),
    at_once: int,
    told: Callable[[int], None] = lambda done: None,
) -> None:
    """The cache of (prompt, answer) pairs, as the teacher's ids, in `folder`.

    states: of a range of pairs the states [A, D] that predict each one's answer; asked for `at_once`
    pairs. about: what states.json says besides; too_long: pairs that were left out. Shards that stand
    there whole are not made again, so `folder` must be of the same pairs and teacher.
    """
    width, (kind, _) = head.shape[1], KINDS[dtype]
    counts = np.array([len(answer) for _, answer in pairs], np.int64)
    size = width * kind.itemsize
    shard = np.concatenate([[0], np.cumsum(counts * size)[:-1]]) // SHARD_BYTES
    shard = np.unique(shard, return_inverse=True)[1]
    places = np.empty((len(pairs), 3), np.int64)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(int(shard.max(initial=-1)) + 1):
        inside = np.flatnonzero(shard == number)
        first = np.cumsum(counts[inside]) - counts[inside]
        places[inside] = np.stack([np.full_like(first, number), first, counts[inside]], 1)
        file = folder / shard_name(number)
        whole = int(counts[inside].sum()) * size
        if not file.is_file() or file.stat().st_size != whole:
            _write_shard(file, range(inside[0], inside[-1] + 1), states, kind, at_once, told)
        told(int(inside[-1]) + 1)
    np.save(folder / "keys.npy", digests(pairs))
    np.save(folder / "too_long.npy", digests(too_long))
    np.save(folder / "places.npy", places)
    save_file({"head": head.detach().cpu().contiguous()}, folder / "head.safetensors")
    about = {"width": width, "dtype": dtype, "shards": int(shard.max(initial=-1)) + 1, **about}
    write_json(folder / "states.json", about)


def _write_shard(
    file: Path,
    pairs: range,
    states: Callable[[range], list[Tensor]],
    kind: torch.dtype,
    at_once: int,
    told: Callable[[int], None],
) -> None:
    aside = file.with_name(f".{file.name}.partial")
    try:
        with aside.open("wb") as out:
            for begin in range(pairs.start, pairs.stop, at_once):
                part = range(begin, min(begin + at_once, pairs.stop))
                for each in states(part):
                    each = each.to(kind).contiguous()
                    each = each.view(torch.int16) if kind == torch.bfloat16 else each
                    out.write(each.numpy().tobytes())
                told(part.stop)
        flush(aside)
        os.replace(aside, file)
    except OSError as error:
        raise machine_error(error, file) from error


def shard_name(number: int) -> str:
    return f"states-{number:05d}.bin"
