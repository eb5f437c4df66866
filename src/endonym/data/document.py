"""The two rows that pass through the house: a document to read, a conversation to imitate.

A table is one Parquet file (zstd). Columns are the fields of the row's class, in order; `messages`
is kept as a JSON string, so that one schema holds turns with and without tools.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from endonym.core.errors import DataError


@dataclass(frozen=True)
class Document:
    """A text to continue-train on or to measure bits per byte on. `licence` is the text's own."""

    id: str
    text: str
    language: str = ""
    source: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Conversation:
    """Messages to imitate: [{"role": "system"|"user"|"assistant"|"tool", "content": str}, ...]."""

    id: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    language: str = ""
    source: str = ""
    licence: str = ""
    task: str = ""


Row = TypeVar("Row", Document, Conversation)

ROWS_PER_GROUP = 8192  # rows held in memory at a time, written and read


def write_table(path: Path | str, rows: Iterable[Document] | Iterable[Conversation]) -> int:
    """A Parquet file out of rows of one class; the number of rows written.

    Rows stream: at most ROWS_PER_GROUP are held. An empty iterable is an error, for the class of
    its rows, and with it the schema, would be unknown.
    """
    import pyarrow.parquet as pq

    count, writer, kind, group = 0, None, None, []
    try:
        for row in rows:
            kind = kind or type(row)
            if type(row) is not kind:
                raise DataError(
                    "rows of two kinds in one table",
                    where=path,
                    wanted=kind.__name__,
                    got=type(row).__name__,
                )
            writer = writer or pq.ParquetWriter(path, _schema(kind), compression="zstd")
            group.append(row)
            count += 1
            if len(group) == ROWS_PER_GROUP:
                writer.write_table(_to_arrow(group, kind))
                group = []
        if group:
            writer.write_table(_to_arrow(group, kind))
    finally:
        if writer is not None:
            writer.close()
    if not count:
        raise DataError(
            "a table without rows", where=path, wanted="at least one document or conversation"
        )
    return count


def read_table(path: Path | str, type: type[Row]) -> Iterator[Row]:
    """The rows of a Parquet file, in order. Columns beyond the class's fields are not read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not Path(path).is_file():
        raise DataError("there is no such table", where=path, wanted="a Parquet file")
    try:
        table = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise DataError(
            "the file is not a Parquet table", where=path, got=str(error).splitlines()[0]
        ) from None
    names = [field.name for field in fields(type)]
    required = ["id", names[1]]
    absent = [name for name in required if name not in table.schema_arrow.names]
    if absent:
        raise DataError(
            f"the table has no column {absent[0]!r}",
            where=path,
            wanted=", ".join(names),
            got=", ".join(table.schema_arrow.names),
        )
    present = [name for name in names if name in table.schema_arrow.names]
    with table:
        for batch in table.iter_batches(batch_size=ROWS_PER_GROUP, columns=present):
            for row in batch.to_pylist():
                if "messages" in row:
                    row["messages"] = json.loads(row["messages"])
                yield type(**row)


def _schema(kind: type):
    import pyarrow as pa

    return pa.schema([(field.name, pa.string()) for field in fields(kind)])


def _to_arrow(rows: list, kind: type):
    import pyarrow as pa

    columns = {}
    for column in fields(kind):
        values = [getattr(row, column.name) for row in rows]
        if column.name == "messages":
            values = [json.dumps(value, ensure_ascii=False) for value in values]
        columns[column.name] = values
    return pa.table(columns, schema=_schema(kind))
