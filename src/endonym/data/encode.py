"""Rows of text as the files of a plain token store (data/shard.py): encoded in batches, written once."""

from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from endonym.core.errors import DataError
from endonym.data.document import Conversation, Document

if TYPE_CHECKING:
    from endonym.tokenizer.folder import Tokenizer

BATCH_CHARACTERS = 1 << 21
"""Documents are encoded this much at a time, so memory stays flat whatever the corpus."""

MOST_NAMES = 4096
"""Of sources, in the order in which they come; sequences of further ones (a file that gives each row a
source of its own) are counted together as OTHERS. More languages than that are an error."""
OTHERS = "(others)"

LARGEST_WEIGHT = float(np.finfo(np.float16).max)

Entry = str | Document | Conversation | list[dict[str, Any]]


class _Columns:
    """What is known of each sequence beside its tokens, in the order of writing."""

    def __init__(self) -> None:
        # arrays: a corpus has 10^8 sequences, and a list takes 36 bytes for each number
        self.lengths = array("q")
        self.scores: dict[str, array] = {}
        self.languages: tuple[dict[str, int], array] = ({}, array("i"))
        self.sources: tuple[dict[str, int], array] = ({}, array("i"))

    def add(self, row: Entry, length: int) -> None:
        for name, value in getattr(row, "scores", {}).items():
            column = self.scores.setdefault(name, array("f"))
            column += array("f", [np.nan]) * (len(self.lengths) - len(column))
            column.append(value)
        names, codes = self.languages
        codes.append(names.setdefault(getattr(row, "language", ""), len(names)))
        names, codes = self.sources
        label = getattr(row, "source", "")
        if label not in names and len(names) >= MOST_NAMES:
            label = OTHERS
        codes.append(names.setdefault(label, len(names)))
        self.lengths.append(length)

    def save(self, folder: Path) -> dict[str, list[str]]:
        number = len(self.lengths)
        if len(self.languages[0]) > MOST_NAMES:
            raise DataError(
                "too many languages in one token store",
                where=folder,
                wanted=f"at most {MOST_NAMES}",
                got=len(self.languages[0]),
            )
        scores = np.full((len(self.scores), number), np.nan, np.float32)
        for line, column in zip(scores, self.scores.values()):
            line[: len(column)] = column
        np.save(folder / "scores.npy", scores)
        offsets = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        np.save(folder / "offsets.npy", offsets)
        for name, labels in (("languages", self.languages), ("sources", self.sources)):
            np.save(folder / f"{name}.npy", np.asarray(labels[1], np.int16))
        return {
            "scores": list(self.scores),
            "languages": list(self.languages[0]),
            "sources": list(self.sources[0]),
        }


def write(
    folder: Path,
    rows: Iterable[Entry],
    tokenizer: "Tokenizer",
    *,
    first: int = 0,
    learn: str = "assistant",
    variables: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Every file of a plain store but meta.json, whose counts and names are returned.

    The arguments are TokenStore.build's. DataError for rows of two kinds, for a conversation that
    cannot be trained on, and for a weight that float16 cannot hold.
    """
    columns, kind, num_bytes, targets = _Columns(), None, 0, 0
    with (folder / "ids.bin").open("wb") as ids, (folder / "weights.bin").open("wb") as weights:
        for batch in _batches(rows):
            kinds = {_kind(row) for row in batch}
            if len(kinds | ({kind} if kind else set())) > 1:
                raise DataError("documents and conversations in one token store", where=folder)
            kind = kinds.pop()
            if kind == "documents":
                texts = [row if isinstance(row, str) else row.text for row in batch]
                num_bytes += sum(len(text.encode()) for text in texts)
                start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
                for row, text in zip(batch, tokenizer.encode_batch(texts, literal=True)):
                    tokens = np.asarray([*start, *text, tokenizer.eos_id], np.uint32)
                    ids.write(tokens.tobytes())
                    targets += len(tokens) - 1
                    columns.add(row, len(tokens))
                continue
            for number, row in enumerate(batch, first):
                for tokens, weight in _conversation(tokenizer, row, number, learn, variables or {}):
                    ids.write(np.asarray(tokens, np.uint32).tobytes())
                    weights.write(weight.tobytes())
                    targets += int((weight > 0).sum())
                    columns.add(row, len(tokens))
            first += len(batch)
    if kind != "conversations":
        (folder / "weights.bin").unlink()
    return {
        "kind": kind or "documents",
        "sequences": len(columns.lengths),
        "tokens": int(sum(columns.lengths)),
        "targets": int(targets),
        "bytes": num_bytes,
        **columns.save(folder),
    }


def _kind(row: Entry) -> str:
    return "documents" if isinstance(row, str | Document) else "conversations"


def _batches(rows: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Rows in their order, some BATCH_CHARACTERS together."""
    batch, weight = [], 0
    for row in rows:
        batch.append(row)
        text = row.text if isinstance(row, Document) else row
        weight += len(text) + 64 if isinstance(text, str) else 1024
        if weight >= BATCH_CHARACTERS:
            yield batch
            batch, weight = [], 0
    if batch:
        yield batch


def _conversation(
    tokenizer: "Tokenizer",
    row: Conversation | list,
    number: int,
    learn: str,
    variables: dict[str, Any],
) -> list[tuple[list[int], np.ndarray]]:
    """(ids, weights) of each training row of a conversation."""
    plain = Conversation("", row) if isinstance(row, list) else row
    where = plain.id or None
    try:
        found = tokenizer.weighted_rows(plain.messages, plain.tools or None, **variables)
        if learn == "all":
            found = _whole(tokenizer, plain, variables, found)
    except DataError as error:
        raise DataError(
            f"conversation {number} cannot be trained on: {error.what}",
            where=", ".join(str(each) for each in (where, error.where) if each) or None,
            wanted=error.wanted,
            got=error.got,
            do=error.do,
        ) from None
    out = []
    for tokens, spans in found:
        exact = np.asarray(spans, np.float64) * plain.weight
        if not ((exact >= 0) & (exact <= LARGEST_WEIGHT)).all():
            raise DataError(
                f"conversation {number} has a weight that cannot be kept",
                where=where,
                wanted=f"numbers from 0 to {LARGEST_WEIGHT:g}",
                got=[float(each) for each in np.unique(exact)][:4],
            )
        out.append((tokens, exact.astype(np.float16)))
    return out


def _whole(
    tokenizer: "Tokenizer",
    row: Conversation,
    variables: dict[str, Any],
    weighted: list[tuple[list[int], list[float]]],
) -> list[tuple[list[int], list[float]]]:
    """The rows with every token learnt: the assistant's by its messages' weights, all others at 1."""
    plain = [{k: v for k, v in message.items() if k != "weight"} for message in row.messages]
    own = {tuple(ids): worth for ids, worth in weighted}
    out = []
    for ids, spoken in tokenizer.weighted_rows(plain, row.tools or None, **variables):
        # a row of which nothing of the assistant is learnt is not among the weighted ones
        worth = own.get(tuple(ids), [0.0] * len(ids))
        out.append((ids, [w if s else 1.0 for s, w in zip(spoken, worth)]))
    return out
