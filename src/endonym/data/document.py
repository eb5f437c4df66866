"""The rows that pass through the house: what is read, what is imitated, what is judged.

    Document      a text to continue-train on                TRL: language modelling
    Conversation  messages to imitate                        TRL: messages, prompt-completion
    Preference    two answers to a prompt, one better        TRL: preference
    Labelled      one answer, good or bad                    TRL: unpaired preference
    Prompt        a prompt to be answered, and its facts     TRL: prompt-only with answer columns

A table is one Parquet file (zstd). Columns are the fields of the row's class, in order; lists and
dicts are kept as JSON strings, so that one schema holds turns with and without tools. Only a
document's scores are columns of their own, `score_<name>`, so that they can be read without the
text. A table that lacks a column of a later version is read with that field's default.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_origin

from endonym.core.errors import DataError

Messages = list[dict[str, Any]]
"""[{"role": "system"|"user"|"assistant"|"tool", "content": str, ...}, ...] (tokenizer/messages.py)"""


@dataclass(frozen=True)
class Document:
    """A text to continue-train on or to measure bits per byte on. `licence` is the text's own."""

    id: str
    text: str
    language: str = ""
    source: str = ""
    licence: str = ""
    scores: dict[str, float] = field(default_factory=dict, hash=False)
    """What is known of the text's worth: {"education": 3.4}; thresholds act on it while loading."""


@dataclass(frozen=True)
class Conversation:
    """Messages to imitate. An assistant's message may carry "weight", a number that multiplies the
    weight of its tokens; 0 is read and not learnt."""

    id: str
    messages: Messages = field(default_factory=list)
    language: str = ""
    source: str = ""
    licence: str = ""
    task: str = ""
    tools: list[dict[str, Any]] = field(default_factory=list)
    """What may be called: [{"type": "function", "function": {"name": ..., "parameters": ...}}]."""
    weight: float = 1.0
    """Of all its learnt tokens."""


@dataclass(frozen=True)
class Preference:
    """Two continuations of a prompt, of which `chosen` is the better."""

    id: str
    prompt: Messages
    chosen: Messages
    rejected: Messages
    language: str = ""
    source: str = ""
    licence: str = ""
    task: str = ""
    tools: list[dict[str, Any]] = field(default_factory=list)
    margin: float | None = None
    """By how much it is better, where somebody said so."""


@dataclass(frozen=True)
class Labelled:
    """A continuation of a prompt that was found good (True) or bad (False)."""

    id: str
    prompt: Messages
    completion: Messages
    label: bool
    language: str = ""
    source: str = ""
    licence: str = ""
    task: str = ""
    tools: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Prompt:
    """A prompt to be answered. `columns` holds what else its row says: what rewards and graders read."""

    id: str
    messages: Messages
    language: str = ""
    source: str = ""
    licence: str = ""
    task: str = ""
    columns: dict[str, Any] = field(default_factory=dict)
    tools: list[dict[str, Any]] = field(default_factory=list)


Row = TypeVar("Row", Document, Conversation, Preference, Labelled, Prompt)

ROWS_PER_GROUP = 8192  # rows held in memory at a time, written and read
SCORE = "score_"


def write_table(path: Path | str, rows: Iterable[Any], *, scores: Sequence[str] = ()) -> int:
    """A Parquet file out of rows of one class; the number of rows written.

    scores: names of the documents' scores; none given, those of the first row. A row may lack one
            (null in the table); one that has another is an error, for it would be lost.

    Rows stream: at most ROWS_PER_GROUP are held. An empty iterable is an error, for the class of
    its rows, and with it the schema, would be unknown.
    """
    import pyarrow.parquet as pq

    count, writer, kind, group, names = 0, None, None, [], list(scores)
    try:
        for row in rows:
            if kind is None:
                kind, names = type(row), names or list(getattr(row, "scores", ()))
                writer = pq.ParquetWriter(path, _schema(kind, names), compression="zstd")
            if type(row) is not kind:
                raise DataError(
                    "rows of two kinds in one table",
                    where=path,
                    wanted=kind.__name__,
                    got=type(row).__name__,
                )
            if kind is Document and row.scores and not row.scores.keys() <= set(names):
                raise DataError(
                    "a document has a score that the table does not",
                    where=f"{path}: {row.id}",
                    wanted=", ".join(names) or "no scores",
                    got=", ".join(row.scores),
                )
            group.append(row)
            count += 1
            if len(group) == ROWS_PER_GROUP:
                writer.write_table(_to_arrow(group, kind, names))
                group = []
        if group:
            writer.write_table(_to_arrow(group, kind, names))
    finally:
        if writer is not None:
            writer.close()
    if not count:
        raise DataError("a table without rows", where=path, wanted="at least one row")
    return count


def num_rows(path: Path | str) -> int:
    """How many rows a table has, by its footer."""
    with _opened(path) as table:
        return table.metadata.num_rows


def score_names(path: Path | str) -> list[str]:
    """The documents' scores that a table has columns for."""
    with _opened(path) as table:
        names = table.schema_arrow.names
    return [name.removeprefix(SCORE) for name in names if name.startswith(SCORE)]


def read_table(path: Path | str, type: type[Row], *, rows: range | None = None) -> Iterator[Row]:
    """The rows of a Parquet file, in order. Columns beyond the class's fields are not read.

    rows: only these, a range of step 1; row groups that hold none of them are not read.
    """
    table = _opened(path)
    known = {each.name: each for each in fields(type)}
    there = table.schema_arrow.names
    absent = [name for name in _required(type) if name not in there]
    if absent:
        raise DataError(
            f"the table has no column {absent[0]!r}",
            where=path,
            wanted=", ".join(known),
            got=", ".join(there),
        )
    scores = [n for n in there if "scores" in known and n.startswith(SCORE)]
    present = [name for name in known if name in there and name != "scores"]
    coded = [name for name in present if _is_coded(known[name])]
    with table:
        groups, skip, left = _chosen(table.metadata, rows)
        batches = table.iter_batches(
            batch_size=ROWS_PER_GROUP, row_groups=groups, columns=present + scores
        )
        for batch in batches:
            part = batch.slice(min(skip, len(batch)), left)
            skip, left = max(0, skip - len(batch)), left - len(part)
            for row in part.to_pylist():
                found = {name: row.pop(name) for name in scores}
                for name in coded:
                    row[name] = json.loads(row[name])
                if scores:
                    row["scores"] = {
                        name.removeprefix(SCORE): value
                        for name, value in found.items()
                        if value is not None
                    }
                yield type(**row)


def _opened(path: Path | str) -> Any:
    """The Parquet file; DataError where there is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not Path(path).is_file():
        raise DataError("there is no such table", where=path, wanted="a Parquet file")
    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise DataError(
            "the file is not a Parquet table", where=path, got=str(error).splitlines()[0]
        ) from None


def _chosen(metadata: Any, rows: range | None) -> tuple[list[int], int, int]:
    """(row groups to read, rows to pass over in the first of them, rows to take)."""
    sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    if rows is None:
        return list(range(len(sizes))), 0, sum(sizes)
    groups, skip, begin = [], 0, 0
    for number, size in enumerate(sizes):
        if begin < rows.stop and begin + size > rows.start:
            skip = skip if groups else rows.start - begin
            groups.append(number)
        begin += size
    return groups, skip, len(rows)


def _required(kind: type) -> list[str]:
    """The columns without which a table is not one of this kind."""
    own = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    return list(dict.fromkeys([*own, fields(kind)[1].name]))


def _is_coded(column: Any) -> bool:
    """Whether a field is written as JSON."""
    return get_origin(column.type) in (list, dict)


def _schema(kind: type, scores: Sequence[str]):
    import pyarrow as pa

    plain = {str: pa.string(), bool: pa.bool_(), float: pa.float64(), float | None: pa.float64()}
    columns = [
        (each.name, pa.string() if _is_coded(each) else plain[each.type])
        for each in fields(kind)
        if each.name != "scores"
    ]
    return pa.schema(columns + [(SCORE + name, pa.float64()) for name in scores])


def _to_arrow(rows: list, kind: type, scores: Sequence[str]):
    import pyarrow as pa

    columns = {}
    for column in fields(kind):
        if column.name == "scores":
            continue
        values = [getattr(row, column.name) for row in rows]
        if _is_coded(column):
            values = [json.dumps(value, ensure_ascii=False) for value in values]
        columns[column.name] = values
    for name in scores:
        columns[SCORE + name] = [row.scores.get(name) for row in rows]
    return pa.table(columns, schema=_schema(kind, scores))
