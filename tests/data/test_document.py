"""Tables: what was written is read back, and damage is named."""

import pytest

from endonym.core.errors import DataError
from endonym.data.document import Conversation, Document, read_table, write_table


def test_documents_and_conversations_come_back_as_they_were(tmp_path):
    documents = [Document(str(n), f"น้ำ {n}", "th", "test", "CC0-1.0") for n in range(9000)]
    assert write_table(tmp_path / "d.parquet", iter(documents)) == 9000  # more than one row group
    assert list(read_table(tmp_path / "d.parquet", Document)) == documents
    turns = [{"role": "user", "content": "สวัสดี"}, {"role": "assistant", "content": "ครับ"}]
    talks = [Conversation("1", turns, "th", "test", "CC0-1.0", "greeting")]
    write_table(tmp_path / "c.parquet", talks)
    assert list(read_table(tmp_path / "c.parquet", Conversation)) == talks


def test_what_is_not_a_table_of_the_kind_says_so(tmp_path):
    with pytest.raises(DataError, match="no such table"):
        list(read_table(tmp_path / "x.parquet", Document))
    (tmp_path / "x.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match="not a Parquet table"):
        list(read_table(tmp_path / "x.parquet", Document))
    write_table(tmp_path / "d.parquet", [Document("1", "a")])
    with pytest.raises(DataError, match="no column 'messages'"):
        list(read_table(tmp_path / "d.parquet", Conversation))
    with pytest.raises(DataError, match="without rows"):
        write_table(tmp_path / "e.parquet", [])
    with pytest.raises(DataError, match="two kinds"):
        write_table(tmp_path / "m.parquet", [Document("1", "a"), Conversation("2")])
