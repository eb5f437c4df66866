"""Tables: what was written is read back, and damage is named."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from endonym.core.errors import DataError
from endonym.data.document import (
    Conversation,
    Document,
    Labelled,
    Preference,
    Prompt,
    num_rows,
    read_table,
    write_table,
)


def test_documents_and_conversations_come_back_as_they_were(tmp_path):
    documents = [Document(str(n), f"น้ำ {n}", "th", "test", "CC0-1.0") for n in range(9000)]
    assert write_table(tmp_path / "d.parquet", iter(documents)) == 9000  # more than one row group
    assert list(read_table(tmp_path / "d.parquet", Document)) == documents
    turns = [{"role": "user", "content": "สวัสดี"}, {"role": "assistant", "content": "ครับ"}]
    talks = [Conversation("1", turns, "th", "test", "CC0-1.0", "greeting")]
    write_table(tmp_path / "c.parquet", talks)
    assert list(read_table(tmp_path / "c.parquet", Conversation)) == talks


ASKED = [{"role": "user", "content": "น้ำเดือดที่กี่องศา"}]
SAID = [{"role": "assistant", "content": "100", "weight": 0.5}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"city": None}}}]


@pytest.mark.parametrize(
    "rows",
    [
        [
            Conversation("1", ASKED + SAID, tools=TOOLS, weight=0.25),
            Conversation("2", ASKED + SAID),
        ],
        [Preference("1", [], SAID, ASKED, "th", "s", "CC0-1.0", "order", TOOLS, 1.5)],
        [Preference("1", ASKED, SAID, ASKED)],
        [Labelled("1", ASKED, SAID, True), Labelled("2", ASKED, SAID, False, tools=TOOLS)],
        [Prompt("1", ASKED, columns={"answer": ["100", 3, None]}, tools=TOOLS)],
        [Document("1", "a", scores={"education": 3.5}), Document("2", "b", scores={})],
    ],
)
def test_every_kind_of_row_comes_back_as_it_was(tmp_path, rows):
    assert write_table(tmp_path / "t.parquet", iter(rows)) == len(rows)
    assert list(read_table(tmp_path / "t.parquet", type(rows[0]))) == rows


def test_scores_are_columns_of_their_own(tmp_path):
    rows = [Document("1", "a"), Document("2", "b", scores={"education": 3.0, "fluency": 0.5})]
    write_table(tmp_path / "d.parquet", rows, scores=["education", "fluency"])
    assert list(read_table(tmp_path / "d.parquet", Document)) == rows
    table = pq.read_table(tmp_path / "d.parquet", columns=["score_education"])
    assert table.to_pydict() == {"score_education": [None, 3.0]}
    assert str(table.schema.field(0).type) == "double"
    with pytest.raises(DataError, match="has a score that the table does not"):
        write_table(tmp_path / "e.parquet", rows)  # the first row has none: 3.0 would be lost


def test_a_range_of_rows_reads_no_other_row_groups(tmp_path, monkeypatch):
    rows = [Document(str(n), f"text {n}") for n in range(50)]
    write_table(tmp_path / "d.parquet", rows)
    pq.write_table(pq.read_table(tmp_path / "d.parquet"), tmp_path / "d.parquet", row_group_size=7)
    assert num_rows(tmp_path / "d.parquet") == 50
    for some in (range(50), range(7), range(6, 8), range(14, 21), range(49, 50), range(3, 3)):
        found = list(read_table(tmp_path / "d.parquet", Document, rows=some))
        assert found == rows[some.start : some.stop], some
    for size in (1, 3, 7):  # batches smaller than what is passed over
        monkeypatch.setattr("endonym.data.document.ROWS_PER_GROUP", size)
        assert list(read_table(tmp_path / "d.parquet", Document, rows=range(12, 30))) == rows[12:30]
    raw = (tmp_path / "d.parquet").read_bytes()
    with pq.ParquetFile(tmp_path / "d.parquet") as table:
        place = table.metadata.row_group(0).column(1).data_page_offset
    (tmp_path / "d.parquet").write_bytes(raw[:place] + b"\xff" * 40 + raw[place + 40 :])
    assert list(read_table(tmp_path / "d.parquet", Document, rows=range(7, 50))) == rows[7:]


def test_tables_of_earlier_versions_still_read(tmp_path):
    old = {"id": ["1"], "messages": [json.dumps(ASKED + SAID)], "language": ["th"], "task": [""]}
    pq.write_table(pa.table(old), tmp_path / "c.parquet")
    (row,) = read_table(tmp_path / "c.parquet", Conversation)
    assert row == Conversation("1", ASKED + SAID, "th")
    pq.write_table(pa.table({"id": ["1"], "text": ["a"]}), tmp_path / "d.parquet")
    assert list(read_table(tmp_path / "d.parquet", Document)) == [Document("1", "a")]


def test_what_is_not_a_table_of_the_kind_says_so(tmp_path):
    with pytest.raises(DataError, match="no such table"):
        list(read_table(tmp_path / "x.parquet", Document))
    (tmp_path / "x.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match="not a Parquet table"):
        list(read_table(tmp_path / "x.parquet", Document))
    write_table(tmp_path / "d.parquet", [Document("1", "a")])
    with pytest.raises(DataError, match="no column 'messages'"):
        list(read_table(tmp_path / "d.parquet", Conversation))
    with pytest.raises(DataError, match="no column 'prompt'"):
        list(read_table(tmp_path / "d.parquet", Preference))
    with pytest.raises(DataError, match="without rows"):
        write_table(tmp_path / "e.parquet", [])
    with pytest.raises(DataError, match="two kinds"):
        write_table(tmp_path / "m.parquet", [Document("1", "a"), Conversation("2")])
