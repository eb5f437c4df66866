"""Parquet and Arrow files as rows; a damaged row is one row, a damaged file an end."""

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from endonym.data import columnar
from endonym.data.broken import Broken
from endonym.data.columnar import columnar_rows

ROWS = [{"text": f"row {n}", "int_score": n % 6} for n in range(1200)]


def stream(path, table):
    with pa.ipc.new_stream(path, table.schema) as out:
        out.write_table(table, max_chunksize=500)


def file(path, table):
    with pa.ipc.new_file(path, table.schema) as out:
        out.write_table(table, max_chunksize=500)


WRITERS = {
    "x.parquet": lambda path, table: pq.write_table(table, path),
    "stream.arrow": stream,
    "file.arrow": file,
    "x.feather": lambda path, table: pa.feather.write_feather(table, path, compression="zstd"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_rows_come_back_with_their_numbers(tmp_path, name):
    WRITERS[name](str(tmp_path / name), pa.Table.from_pylist(ROWS))
    found = list(columnar_rows(tmp_path / name))
    assert [number for number, _ in found] == list(range(1, 1201))
    assert [row for _, row in found] == ROWS


@pytest.mark.parametrize("name", ["x.parquet", "stream.arrow", "file.arrow"])
def test_a_damaged_file_is_one_broken_row_after_those_that_can_be_read(tmp_path, name):
    WRITERS[name](str(tmp_path / name), pa.Table.from_pylist(ROWS))
    whole = (tmp_path / name).read_bytes()
    for size in (0, 3, 100, len(whole) // 2, len(whole) - 9):
        (tmp_path / name).write_bytes(whole[:size])
        found = [row for _, row in columnar_rows(tmp_path / name)]
        bad = [row for row in found if isinstance(row, Broken)]
        assert found[: len(found) - len(bad)] == ROWS[: len(found) - len(bad)]
        assert len(bad) <= 1 and (bad or found == ROWS), size  # a stream may lack its end mark
        assert all("damaged" in row.reason for row in bad)


def test_strings_that_are_no_utf8_are_rows_set_aside_alone(tmp_path):
    raw = [b"a", b"\xff\xfe", b"c", b"\x80", "ไทย".encode()]
    strings = pa.array(raw, pa.binary()).cast(pa.string(), safe=False)
    with pa.ipc.new_file(str(tmp_path / "x.arrow"), pa.schema([("text", pa.string())])) as out:
        out.write_table(pa.table({"text": strings}))
    found = [row for _, row in columnar_rows(tmp_path / "x.arrow")]
    assert [row if isinstance(row, Broken) else row["text"] for row in found][::2] == [
        "a",
        "c",
        "ไทย",
    ]
    assert all(isinstance(row, Broken) and "UTF8" in row.reason for row in found[1::2])


def test_offsets_that_lead_outside_do_not_crash(tmp_path):
    offsets = pa.py_buffer(np.array([0, 1, 1 << 30, 3], np.int32))
    array = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"abc")])
    batch = pa.RecordBatch.from_arrays([array], names=["text"])
    found = list(columnar._rows_of(batch))
    assert found[0] == {"text": "a"} and all(isinstance(row, Broken) for row in found[1:])


def test_keys_that_only_other_rows_have_are_left_out(tmp_path):
    tools = [{"name": "a", "parameters": {"x": 1}}, {"name": "b", "parameters": {"y": 2}}]
    rows = [{"id": None, "tools": tools[:1]}, {"id": "2", "tools": tools[1:]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    assert [row for _, row in columnar_rows(tmp_path / "x.parquet")] == rows
