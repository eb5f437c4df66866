"""Rows of Parquet and Arrow files, some hundred in memory at a time.

Every row is validated before it is touched. An offset that leads outside of its buffer would be a
crash, not an exception, and a string that is no UTF-8 would take the rows beside it along.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from endonym.data.broken import Broken

COLUMNAR = (".parquet", ".arrow", ".feather")
ROWS = 512


def columnar_rows(file: Path) -> Iterator[tuple[int, Any]]:
    """(number from 1, row) of a Parquet file, an Arrow file (Feather 2) or an Arrow stream."""
    import pyarrow as pa

    is_parquet, number = file.name.endswith(".parquet"), 0
    try:
        for batch in _parquet(file) if is_parquet else _arrow(file):
            nested = any(pa.types.is_nested(kind) for kind in batch.schema.types)
            for start in range(0, batch.num_rows, ROWS):
                for row in _rows_of(batch.slice(start, ROWS)):
                    number += 1
                    yield number, _without_gaps(row) if nested else row
    except (pa.ArrowException, OSError) as error:
        kind = "Parquet" if is_parquet else "Arrow"
        yield number + 1, Broken(f"damaged {kind} file: {_first_line(error)}", is_rest=True)


def _parquet(file: Path) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        yield from table.iter_batches(batch_size=ROWS)


def _arrow(file: Path) -> Iterator[Any]:
    """Batches of an Arrow file or of a stream (what datasets keeps on disk), memory-mapped."""
    import pyarrow as pa

    with pa.memory_map(str(file)) as source:
        if source.read(6) == b"ARROW1":
            table = pa.ipc.open_file(source)
            yield from (table.get_batch(number) for number in range(table.num_record_batches))
        else:
            source.seek(0)
            yield from pa.ipc.open_stream(source)


def _rows_of(batch: Any) -> Iterator[Any]:
    """The rows of a batch; where it holds a damaged one, that alone is Broken."""
    import pyarrow as pa

    try:
        batch.validate(full=True)
        rows = batch.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            yield Broken(f"a damaged row: {_first_line(error)}")
            return
        middle = batch.num_rows // 2
        yield from _rows_of(batch.slice(0, middle))
        yield from _rows_of(batch.slice(middle))
    else:
        yield from rows


def _without_gaps(row: dict[str, Any]) -> dict[str, Any]:
    """A row without the nulls inside its nested values: a column of structs has one set of keys for
    all rows, so each of two tools would carry the other's parameters. The row's own nulls stay."""
    return row if isinstance(row, Broken) else {k: _filled(value) for k, value in row.items()}


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner) for key, inner in value.items() if inner is not None}
    return [_filled(inner) for inner in value] if isinstance(value, list) else value


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]
