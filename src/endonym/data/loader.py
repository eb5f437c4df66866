"""Training rows by step number: ids in memory-mapped files, and an order that needs no state.

    texts or conversations -> TokenStore (ids, once) -> pieces -> packed rows -> Loader.rows(step)

Resuming at step n is calling rows(n): nothing is skipped, no position is saved. Shapes: B rows,
T time.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from endonym.core.errors import DataError
from endonym.data.document import Conversation, Document
from endonym.data.mix import Mixture
from endonym.data.pack import Pieces, best_fit, cut, one_each

if TYPE_CHECKING:
    from endonym.methods.batch import Rows
    from endonym.tokenizer.folder import Tokenizer

FORMAT = 2  # 2: a conversation may make several sequences
BATCH_CHARACTERS = 1 << 21
"""Documents are encoded this much at a time, so memory stays flat whatever the corpus."""

Entry = str | Document | Conversation | list[dict[str, Any]]


class TokenStore:
    """Token sequences on disk: ids.bin (uint32), offsets.npy, supervised.bin for conversations.

    A document is its text's ids and the end-of-document token, after the tokenizer's own opening
    token where it has one (Llama's <s>); every token after the first is a target. A conversation
    is its training rows (Tokenizer.training_rows: one, or several where thoughts are dropped from
    history), and the assistant's tokens are the targets.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.meta = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
        self.offsets = np.load(self.folder / "offsets.npy")
        self.ids = _mapped(self.folder / "ids.bin", np.uint32)
        has_mask = self.meta["kind"] == "conversations"
        self.mask = _mapped(self.folder / "supervised.bin", np.bool_) if has_mask else None
        if len(self.ids) != self.meta["tokens"] or len(self) != self.meta["sequences"]:
            raise DataError(
                "a token store does not match its own count",
                where=self.folder,
                wanted=f"{self.meta['tokens']} tokens",
                got=len(self.ids),
                do="delete the folder; it is built again from the data",
            )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def num_tokens(self) -> int:
        return self.meta["tokens"]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence, [N] int64."""
        return np.diff(self.offsets)

    def tokens(self, number: int) -> np.ndarray:
        """The ids of one sequence, uint32."""
        return self.ids[self.offsets[number] : self.offsets[number + 1]]

    def supervised(self, number: int) -> np.ndarray:
        """Which of them are targets, bool; of a document all."""
        begin, end = self.offsets[number], self.offsets[number + 1]
        return np.ones(end - begin, bool) if self.mask is None else self.mask[begin:end]

    def targets(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """How many targets stand in the token ranges [begin, end) of the whole store."""
        if self.mask is None:
            return end - begin
        before = np.concatenate([[0], np.cumsum(self.mask, dtype=np.int64)])
        return before[end] - before[begin]

    @classmethod
    def build(
        cls, folder: Path | str, rows: Iterable[Entry], tokenizer: "Tokenizer", *, key: str
    ) -> "TokenStore":
        """The store of `rows` (all documents or all conversations) at `folder`.

        key names the rows' content (an artifact's address, a file's hash). A store that already
        stands there with this key and this tokenizer is reused and `rows` is not touched; any
        other is replaced. It is written beside and renamed, so a kill leaves no half store.
        """
        folder = Path(folder)
        identity = hashlib.sha256(f"{FORMAT} {key} {tokenizer.identity}".encode()).hexdigest()
        if (folder / "meta.json").is_file():
            known = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            if known.get("identity") == identity:
                return cls(folder)
        aside = folder.with_name(folder.name + ".partial")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        meta = _write(aside, rows, tokenizer) | {"identity": identity, "key": key}
        (aside / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
        for file in aside.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
        return cls(folder)


def _write(folder: Path, rows: Iterable[Entry], tokenizer: "Tokenizer") -> dict[str, Any]:
    lengths, kind, num_bytes, targets, talks = [], None, 0, 0, 0
    with (folder / "ids.bin").open("wb") as ids, (folder / "supervised.bin").open("wb") as mask:
        for batch in _batches(rows):
            kinds = {"documents" if isinstance(row, str) else "conversations" for row in batch}
            if len(kinds | ({kind} if kind else set())) > 1:
                raise DataError("documents and conversations in one token store", where=folder)
            kind = kinds.pop()
            if kind == "documents":
                start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
                found = tokenizer.encode_batch(batch, literal=True)
                encoded = [([*start, *text, tokenizer.eos_id], None) for text in found]
                num_bytes += sum(len(text.encode()) for text in batch)
            else:
                encoded = [
                    one for n, row in enumerate(batch, talks) for one in _chat(tokenizer, row, n)
                ]
                talks += len(batch)
            for tokens, supervised in encoded:
                lengths.append(len(tokens))
                ids.write(np.asarray(tokens, dtype=np.uint32).tobytes())
                targets += len(tokens) - 1 if supervised is None else sum(supervised)
                if supervised is not None:
                    mask.write(np.asarray(supervised, dtype=np.bool_).tobytes())
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
    return {
        "kind": kind or "documents",
        "sequences": len(lengths),
        "tokens": int(sum(lengths)),
        "targets": int(targets),
        "bytes": num_bytes,
    }


def _batches(rows: Iterable[Entry]) -> Iterator[list[str | list]]:
    """Rows as plain texts or message lists, some BATCH_CHARACTERS together."""
    batch, weight = [], 0
    for row in rows:
        plain = row
        if isinstance(row, Document):
            plain = row.text
        elif isinstance(row, Conversation):
            plain = row.messages
        batch.append(plain)
        weight += len(plain) + 64 if isinstance(plain, str) else 1024
        if weight >= BATCH_CHARACTERS:
            yield batch
            batch, weight = [], 0
    if batch:
        yield batch


def _chat(
    tokenizer: "Tokenizer", messages: list, number: int
) -> list[tuple[list[int], list[bool]]]:
    try:
        return tokenizer.training_rows(messages)
    except DataError as error:
        raise DataError(
            f"conversation {number} cannot be trained on: {error.what}",
            where=error.where,
            wanted=error.wanted,
            got=error.got,
            do=error.do,
        ) from None


def _mapped(file: Path, dtype: type) -> np.ndarray:
    """A read-only memory map; an empty file cannot be mapped and is an empty array."""
    if file.stat().st_size == 0:
        return np.empty(0, dtype)
    return np.memmap(file, dtype=dtype, mode="r")


class Loader:
    """Packed rows of several stores, mixed by weight, as a function of the step.

    stores:         where the tokens lie
    weights:        share of ROWS each store gets (rows are packed nearly full, so about of tokens);
                    None takes all rows of all stores once an epoch
    rows_per_step:  B of one optimizer step; the loop may split it, the order does not change
    row_length:     T at most
    packed:         several sequences a row; False gives each a row of its own
    never_truncate: refuse sequences longer than a row. Otherwise a document goes on in another
                    row as a piece of its own, and a conversation keeps its beginning
    """

    def __init__(
        self,
        stores: Sequence[TokenStore],
        weights: Sequence[float] | None = None,
        *,
        rows_per_step: int,
        row_length: int,
        seed: int = 0,
        packed: bool = True,
        never_truncate: bool = False,
    ):
        self.stores, self.rows_per_step, self.row_length = list(stores), rows_per_step, row_length
        self.shortened = [0] * len(self.stores)
        self.dropped = [0] * len(self.stores)
        self._pieces = [self._cut(number, never_truncate) for number in range(len(self.stores))]
        self._packings = [
            best_fit(p.length, row_length) if packed else one_each(len(p), row_length)
            for p in self._pieces
        ]
        self.num_rows = [len(packing) for packing in self._packings]
        self._joint = np.concatenate([[0], np.cumsum(self.num_rows)])
        sizes = [int(self._joint[-1])] if weights is None else self.num_rows
        if not sum(self.num_rows):
            raise DataError("there is nothing to train on", where=[s.name for s in self.stores])
        self.mixture = Mixture.of(sizes, None if weights is None else list(weights), seed)
        settings = [rows_per_step, row_length, seed, packed, self.mixture.counts, sizes]
        names = [store.meta["identity"] for store in self.stores]
        self.identity = hashlib.sha256(json.dumps([settings, names]).encode()).hexdigest()

    def _cut(self, number: int, never_truncate: bool) -> Pieces:
        """Pieces of a store. A sequence of n tokens has n - 1 predictions, hence n - 1 inputs."""
        store = self.stores[number]
        inputs = np.maximum(store.lengths - 1, 0)
        pieces = cut(inputs, self.row_length, never_truncate=never_truncate)
        self.shortened[number] = int((inputs > self.row_length).sum())
        if store.mask is None:
            self.dropped[number] = int((inputs == 0).sum())
            return pieces
        begin = store.offsets[pieces.sequence] + pieces.start + 1
        keeps = (pieces.start == 0) & (store.targets(begin, begin + pieces.length) > 0)
        self.dropped[number] = len(store) - int(keeps.sum())
        return Pieces(pieces.sequence[keeps], pieces.start[keeps], pieces.length[keeps])

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every row has been seen at least once, with weights None."""
        return -(-int(self._joint[-1]) // self.rows_per_step)

    def places(self, step: int) -> list[tuple[int, int]]:
        """(store, row of its packing) of each row of a step."""
        slots = np.arange(step * self.rows_per_step, (step + 1) * self.rows_per_step)
        source, row = self.mixture.at(slots)
        if len(self.mixture.sizes) == 1 and len(self.stores) > 1:
            source = np.searchsorted(self._joint, row, side="right") - 1
            row = row - self._joint[source]
        return list(zip(source.tolist(), row.tolist()))

    def sequences(self, step: int) -> list[list[tuple[int, int, int]]]:
        """For each row of a step its pieces: (store, sequence, first token)."""
        return [
            [
                (store, int(self._pieces[store].sequence[p]), int(self._pieces[store].start[p]))
                for p in self._packings[store].row(row)
            ]
            for store, row in self.places(step)
        ]

    def rows(self, step: int) -> "Rows":
        """The rows of step `step` (from 0), padded to the longest of them and a multiple of 8."""
        import torch

        from endonym.methods.batch import Rows

        places = self.places(step)
        pieces = [self._packings[store].row(row) for store, row in places]
        longest = max(
            int(self._pieces[store].length[inside].sum())
            for (store, _), inside in zip(places, pieces)
        )
        width = min(-(-longest // 8) * 8, self.row_length)
        shape = (len(places), width)
        tokens, labels = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        weights = np.zeros(shape, np.float32)
        segments, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for line, ((number, _), inside) in enumerate(zip(places, pieces)):
            store, plan, at = self.stores[number], self._pieces[number], 0
            for segment, piece in enumerate(inside.tolist(), start=1):
                length = int(plan.length[piece])
                begin = int(store.offsets[plan.sequence[piece]] + plan.start[piece])
                here = slice(at, at + length)
                stretch = store.ids[begin : begin + length + 1]
                tokens[line, here], labels[line, here] = stretch[:-1], stretch[1:]
                targets = slice(begin + 1, begin + length + 1)
                weights[line, here] = 1.0 if store.mask is None else store.mask[targets]
                segments[line, here] = segment
                positions[line, here] = np.arange(length)
                at += length
        return Rows(*map(torch.from_numpy, (tokens, labels, weights, segments, positions)))

    def report(self, steps: int) -> list[dict[str, Any]]:
        """What `steps` steps draw: rows, tokens (by the mean row of a store), share, epochs, per store."""
        slots = steps * self.rows_per_step
        if len(self.mixture.sizes) == len(self.stores):
            drawn = [float(count) for count in self.mixture.drawn(slots)]
        else:
            drawn = [slots * rows / int(self._joint[-1]) for rows in self.num_rows]
        inputs = [int(pieces.length.sum()) for pieces in self._pieces]
        tokens = [n * all_ / max(r, 1) for n, all_, r in zip(drawn, inputs, self.num_rows)]
        return [
            {
                "source": store.name,
                "rows": drawn[i],
                "tokens": round(tokens[i]),
                "share": tokens[i] / max(sum(tokens), 1),
                "epochs": drawn[i] / max(self.num_rows[i], 1),
                "fill": inputs[i] / max(self.num_rows[i] * self.row_length, 1),
                "shortened": self.shortened[i],
                "dropped": self.dropped[i],
            }
            for i, store in enumerate(self.stores)
        ]
