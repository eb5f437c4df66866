"""Token sequences on disk, read through memory maps: written once, the same for every phase and rank.

A plain store is a folder of the files that data/shard.py names. A joined store is a folder of plain
ones, 000, 001, ..., with a meta.json that lists them and the sha256 of each one's meta.json: the
sequences of all, in order, without a copy.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from endonym.core.artifact import sha256_file
from endonym.core.errors import DataError
from endonym.data.encode import Entry, write
from endonym.data.shard import (
    FORMAT,
    Labels,
    Shard,
    built,
    compare,
    compare_meta,
    read_meta,
    write_meta,
)

if TYPE_CHECKING:
    from endonym.tokenizer.folder import Tokenizer

COUNTED = 1 << 22
"""Weights looked at in one go when targets are counted."""


class TokenStore:
    """Token sequences of one kind, documents or conversations, numbered through all shards.

    A document is its text's ids and the end-of-document token, after the tokenizer's own opening
    token where it has one (Llama's <s>); every token after the first is a target of weight 1. A
    conversation is its training rows (Tokenizer.training_rows: one, or several where thoughts are
    dropped from history); a token's weight is that of its message (0 outside the assistant's words)
    times the conversation's own, kept as float16 (three decimals).
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.meta = read_meta(self.folder)
        names = self.meta.get("shards")
        if names is None:
            self.shards = [Shard(self.folder)]
        else:
            for name in names:
                compare_meta(self.folder / name, self.meta["digests"][name])
            self.shards = [Shard(self.folder / name) for name in names]
        self._first = np.cumsum([0, *map(len, self.shards)])
        self.lengths = _joined([np.diff(shard.offsets) for shard in self.shards], np.int64)
        """Tokens of each sequence, [N] int64."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def num_tokens(self) -> int:
        return self.meta["tokens"]

    @property
    def identity(self) -> str:
        """Of the rows' content, the tokenizer and the format; however many shards hold them."""
        return self.meta["identity"]

    @property
    def has_weights(self) -> bool:
        return any(shard.weights is not None for shard in self.shards)

    def stretch(self, number: int, start: int, length: int) -> tuple[np.ndarray, np.ndarray | None]:
        """(ids, weights) of tokens [start, start + length) of one sequence: views into the maps.

        weights None: all 1."""
        shard, begin = self._place(number, start)
        weights = shard.weights
        end = begin + length
        return shard.ids[begin:end], None if weights is None else weights[begin:end]

    def tokens(self, number: int) -> np.ndarray:
        """The ids of one sequence, uint32."""
        return self.stretch(number, 0, self.lengths[number])[0]

    def supervised(self, number: int) -> np.ndarray:
        """Which of them are targets, bool; of a document all."""
        ids, weights = self.stretch(number, 0, self.lengths[number])
        return np.ones(len(ids), bool) if weights is None else weights > 0

    def targets(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """How many tokens of a weight above 0 stand in the ranges [begin, end) of the whole store.

        Places count through all shards, as in `offsets`. One pass over the weights, in pieces.
        """
        if not self.has_weights:
            return end - begin
        places, back = np.unique(np.concatenate([begin, end]), return_inverse=True)
        before, done, at = np.empty(len(places), np.int64), 0, 0
        for shard in self.shards:
            for start in range(0, max(len(shard.ids), 1), COUNTED):
                stop = min(start + COUNTED, len(shard.ids))
                learnt = (
                    np.ones(stop - start, bool)
                    if shard.weights is None
                    else shard.weights[start:stop] > 0
                )
                until = np.searchsorted(places, at + stop - start, side="right")
                known = np.searchsorted(places, at)
                sums = np.concatenate([[0], np.cumsum(learnt, dtype=np.int64)])
                before[known:until] = done + sums[places[known:until] - at]
                done, at = done + int(sums[-1]), at + stop - start
        counts = before[back]
        return counts[len(begin) :] - counts[: len(begin)]

    @property
    def offsets(self) -> np.ndarray:
        """Where each sequence begins, counted through all shards, [N + 1] int64."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    @property
    def ids(self) -> np.ndarray:
        """All ids: the memory map of a plain store; of a joined one a copy (for reading use stretch)."""
        return _joined([shard.ids for shard in self.shards], np.uint32)

    @property
    def weights(self) -> np.ndarray | None:
        """All weights, float16, like `ids`; None where every token after the first weighs 1."""
        if not self.has_weights:
            return None
        return _joined(
            [
                np.ones(len(shard.ids), np.float16) if shard.weights is None else shard.weights
                for shard in self.shards
            ],
            np.float16,
        )

    @property
    def scores(self) -> dict[str, np.ndarray]:
        """Name -> float32 [N]; nan where a sequence has no such score."""
        names = dict.fromkeys(name for shard in self.shards for name in shard.scores)
        return {
            name: _joined(
                [
                    shard.scores.get(name, np.full(len(shard), np.nan, np.float32))
                    for shard in self.shards
                ],
                np.float32,
            )
            for name in names
        }

    @property
    def languages(self) -> Labels:
        """Of each sequence its language, "" where its row named none."""
        return _together([shard.languages for shard in self.shards])

    @property
    def sources(self) -> Labels:
        """Of each sequence the source that its row named."""
        return _together([shard.sources for shard in self.shards])

    def check(self) -> None:
        """Read every byte and compare it with the recorded hashes. DataError at the first that differs."""
        for shard in self.shards:
            compare(shard.folder, shard.meta["files"], full=True)

    def _place(self, number: int, start: int) -> tuple[Shard, int]:
        """The shard of a sequence, and where in it the token `start` of the sequence stands."""
        which = 0
        if len(self.shards) > 1:
            which = int(np.searchsorted(self._first, number, side="right")) - 1
        shard = self.shards[which]
        return shard, int(shard.offsets[number - self._first[which]]) + int(start)

    @classmethod
    def build(
        cls,
        folder: Path | str,
        rows: Iterable[Entry],
        tokenizer: "Tokenizer",
        *,
        key: str,
        first: int = 0,
        learn: Literal["assistant", "all"] = "assistant",
        variables: dict[str, Any] | None = None,
    ) -> "TokenStore":
        """The plain store of `rows` (all documents or all conversations) at `folder`.

        key:       names the rows' content (an artifact's address, a file's hash)
        first:     the number that errors give the first row
        learn:     of conversations: the assistant's words, or every token (the assistant's still by
                   its messages' weights, so that 0 leaves a turn out)
        variables: of the chat template (Tokenizer.render)

        A store that already stands there with this key, tokenizer and these settings is reused and
        `rows` is not touched; any other is replaced (data/shard.built).
        """
        folder = Path(folder)
        identity = identity_of(key, tokenizer, learn=learn, variables=variables)

        def written(aside: Path) -> dict[str, Any]:
            meta = write(aside, rows, tokenizer, first=first, learn=learn, variables=variables)
            return meta | {"key": key}

        built(folder, identity, written)
        return cls(folder)

    @classmethod
    def join(cls, folder: Path | str, identity: str) -> "TokenStore":
        """One store of the plain ones below `folder` (names are digits), in the order of their numbers.

        identity: identity_of(key, tokenizer) of the rows that they hold together. Shards without a
        sequence are allowed; a gap in the numbers, or shards of two kinds, is a DataError.
        """
        folder = Path(folder)
        found = sorted((f for f in folder.iterdir() if f.name.isdigit()), key=lambda f: int(f.name))
        if [int(f.name) for f in found] != list(range(len(found))) or not found:
            got = ", ".join(f.name for f in found) or "no shard"
            raise DataError("shards are missing", where=folder, wanted="000, 001, ...", got=got)
        metas = [Shard(each).meta for each in found]
        kinds = {meta["kind"] for meta in metas if meta["sequences"]}
        if len(kinds) > 1:
            raise DataError("documents and conversations in one token store", where=folder)
        sums = ("sequences", "tokens", "targets", "bytes")
        joined = {
            "kind": kinds.pop() if kinds else metas[0]["kind"],
            **{name: sum(meta[name] for meta in metas) for name in sums},
            "identity": identity,
            "shards": [each.name for each in found],
            "digests": {each.name: sha256_file(each / "meta.json") for each in found},
        }
        write_meta(folder, joined)
        return cls(folder)


def identity_of(
    key: str,
    tokenizer: "Tokenizer",
    *,
    learn: str = "assistant",
    variables: dict[str, Any] | None = None,
) -> str:
    """The identity of a store: the rows' key, the tokenizer, the settings of build, and FORMAT."""
    settings = {"learn": learn} if learn != "assistant" else {}
    settings |= {"variables": variables} if variables else {}
    told = f" {json.dumps(settings, sort_keys=True)}" if settings else ""
    return hashlib.sha256(f"{FORMAT} {key} {tokenizer.identity}{told}".encode()).hexdigest()


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts).astype(dtype, copy=False)


def _together(parts: list[Labels]) -> Labels:
    if len(parts) == 1:
        return parts[0]
    places: dict[str, int] = {}
    codes = []
    for part in parts:
        table = np.array([places.setdefault(n, len(places)) for n in part.names], np.int16)
        codes.append(table[part.codes] if len(part.codes) else np.empty(0, np.int16))
    return Labels(list(places), np.concatenate(codes))
