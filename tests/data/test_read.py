import gzip
import json
from pathlib import Path

import pytest
import zstandard

from endonym.core.errors import DataError
from endonym.data import files
from endonym.data.document import Conversation, Document
from endonym.data.files import find
from endonym.data.read import Reading

ANSWER = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def write(path: Path, *lines: bytes | str | dict | list) -> Path:
    raw = [
        line
        if isinstance(line, bytes)
        else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    path.write_bytes(b"\n".join(raw) + b"\n")
    return path


def read(path, kind=Document, **settings):
    reading = Reading(find(path), kind, **{"limit": 1.0, **settings})
    return list(reading), reading


def reason_of(tmp_path, line, kind=Document):
    path = write(tmp_path / "rows.jsonl", line)
    rows, reading = read(path, kind, quarantine=tmp_path / "quarantine.jsonl")
    assert rows == [] and (reading.rows_in, reading.rows_used) == (1, 0)
    entry = json.loads((tmp_path / "quarantine.jsonl").read_text())
    assert (entry["file"], entry["line"]) == (str(path), 1)
    return entry["reason"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a"', "broken JSON"),
        (b'{"text": "a\x00"}', "broken JSON"),
        (b'{"text": "a\\u0000"}', "NUL character in text"),
        (b'{"text": "\\ud800"}', "lone surrogate in text"),
        (b'{"text": "\xff"}', "invalid UTF-8 at byte 10"),
        (b'{"text": 3}', "text is not a string but int"),
        (b'{"text": " "}', "empty text"),
        (b'{"words": "a"}', "no text (keys: words)"),
        (b'["text"]', "a row is not an object but list"),
        (b"[" * 100_000, "broken JSON: RecursionError"),
    ],
)
def test_why_a_document_cannot_be_used(tmp_path, line, reason):
    assert reason_of(tmp_path, line).startswith(reason)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [{"role": "narrator", "content": "x"}]}, "unknown role 'narrator'"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "unknown role ['user']"),
        ({"messages": [ANSWER[0], {"role": "assistant", "content": " "}]}, "empty assistant turn"),
        ({"messages": ANSWER[:1]}, "no assistant turn"),
        ({"messages": []}, "messages is not a list of turns"),
        ({"messages": "hello"}, "messages is not a list of turns"),
        ({"messages": ["hello"]}, "a turn is not an object but str"),
        (
            {"messages": [{"role": "user", "content": None}]},
            "user content is not a string but NoneType",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "a turn holds content that is",
        ),
        ({"conversations": [{"from": "alien", "value": "x"}]}, "unknown role 'alien'"),
        ({"prompt": "a"}, "no conversation in a known shape (keys: prompt)"),
        ({"prompt": "a", "completion": 4}, "assistant is not a list of turns"),
        ({"instruction": 1, "output": "b"}, "instruction is not a string but int"),
    ],
)
def test_why_a_conversation_cannot_be_used(tmp_path, row, reason):
    assert reason_of(tmp_path, row, Conversation).startswith(reason)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": ANSWER},
        {"messages": json.dumps(ANSWER)},
        {"messages": str(ANSWER)},  # as Python prints a list
        {"prompt": "a", "completion": "b"},
        {"prompt": ANSWER[:1], "completion": ANSWER[1:]},
        {"instruction": "a", "input": "", "output": "b"},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, ANSWER[1]]},
    ],
)
def test_shapes_of_a_conversation(tmp_path, row):
    (found,), _ = read(write(tmp_path / "x.jsonl", row), Conversation, language="en")
    assert found.messages == ANSWER
    assert (found.id, found.language, found.source) == ("x:1", "en", "x")


def test_alpaca_with_system_history_and_input(tmp_path):
    row = {
        "instruction": "c",
        "input": "d",
        "output": "e",
        "system": "s",
        "history": [["a", "b"]],
    }
    (found,), _ = read(write(tmp_path / "x.jsonl", row), Conversation)
    assert [(m["role"], m["content"]) for m in found.messages] == [
        ("system", "s"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c\n\nd"),
        ("assistant", "e"),
    ]


@pytest.mark.parametrize(
    "turn",
    [
        {"content": "b", "reasoning_content": "t"},
        {"content": "b", "thinking": "t"},
        {"content": "b", "reasoning": "t"},
        {"content": "<think>\nt\n</think>\n\nb"},
        {"content": "<think>t</think>b"},
    ],
)
def test_thoughts_go_into_their_own_field(tmp_path, turn):
    row = {"messages": [ANSWER[0], {"role": "assistant", **turn}]}
    (found,), _ = read(write(tmp_path / "x.jsonl", row), Conversation)
    assert found.messages == [ANSWER[0], ANSWER[1] | {"reasoning_content": "t"}]


@pytest.mark.parametrize(
    "content", ["b <think>t</think>", "<think>t", "<think>t</think>", "<think>"]
)
def test_words_that_only_speak_of_thoughts_stay(tmp_path, content):
    row = {"messages": [{"role": "user", "content": content}, ANSWER[1] | {"content": content}]}
    (found,), _ = read(write(tmp_path / "x.jsonl", row), Conversation)
    assert found.messages == row["messages"]


def test_thoughts_that_are_no_text_set_the_row_aside(tmp_path):
    row = {"messages": [ANSWER[0], ANSWER[1] | {"thinking": ["t"]}]}
    assert reason_of(tmp_path, row, Conversation) == "reasoning_content is not a string but list"


def test_a_tool_call_needs_no_words(tmp_path):
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": {}}]}
    (found,), _ = read(write(tmp_path / "x.jsonl", {"messages": [ANSWER[0], call]}), Conversation)
    assert found.messages[1] == {**call, "content": ""}


def test_byte_order_mark_crlf_and_blank_lines_are_read_over(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n  \n{"text": "b"}')
    rows, reading = read(path)
    assert [(row.text, row.id) for row in rows] == [("a", "x:1"), ("b", "x:4")]
    assert reading.rows_in == reading.rows_used == 2


def test_counts_are_exact_and_the_limit_holds(tmp_path):
    good = [{"text": f"row {n}"} for n in range(98)]
    path = write(tmp_path / "x.jsonl", *good[:50], b"{", *good[50:], b'{"text": ""}')
    rows, reading = read(path, limit=0.02, quarantine=tmp_path / "q.jsonl")
    assert (reading.rows_in, len(rows), reading.rows_quarantined) == (100, 98, 2)
    lines = [json.loads(line)["line"] for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert lines == [51, 100]
    with pytest.raises(DataError, match="2 of 100 rows cannot be used") as error:
        read(path, limit=0.0199)
    assert "x.jsonl:51: broken JSON" in str(error.value)


def test_a_second_pass_counts_afresh(tmp_path):
    reading = Reading(find(write(tmp_path / "x.jsonl", {"text": "a"})), Document)
    assert list(reading) == list(reading)
    assert reading.rows_in == 1


def test_ids(tmp_path):
    rows = [{"id": 7, "text": "a"}, {"id": "7", "text": "b"}, {"id": 7, "text": "a"}, {"text": "c"}]
    found, reading = read(write(tmp_path / "x.jsonl", *rows))
    assert [row.id for row in found] == ["7", "7:2", "x:4"]
    assert reading.reasons == {"the same id and content once more": 1}


def test_an_endless_line_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_LINE", 3000)
    monkeypatch.setattr(files, "CHUNK", 1000)
    long = b'{"text": "' + b"x" * 20_000 + b'"}'
    rows, reading = read(write(tmp_path / "x.jsonl", {"text": "a"}, long, {"text": "b"}, long))
    assert [row.text for row in rows] == ["a", "b"]
    assert reading.rows_in == 4
    assert [reason[:6] for reason in reading.reasons] == ["a line"]


@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_compressed_files_whole_and_cut_short(tmp_path, packing):
    raw = b"".join(
        json.dumps({"text": f"row {n} {'x' * (n % 97)}"}).encode() + b"\n" for n in range(9999)
    )
    pack = gzip.compress if packing == "gz" else zstandard.ZstdCompressor().compress
    path = tmp_path / f"x.jsonl.{packing}"
    path.write_bytes(pack(raw[:1234]) + pack(raw[1234:]))  # two members, as `cat a.gz b.gz` makes
    rows, reading = read(path)
    assert len(rows) == reading.rows_in == 9999
    path.write_bytes(path.read_bytes()[:-50])
    rows, reading = read(path)
    assert reading.rows_in == len(rows) + 1 and len(rows) < 9999
    assert "truncated" in next(iter(reading.reasons))
    path.write_bytes(b"no such thing")
    rows, reading = read(path)
    assert (len(rows), reading.rows_in) == (0, 1)


def test_parquet_json_and_text(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"sentence": ["a", "b"]}), tmp_path / "x.parquet")
    rows, _ = read(tmp_path / "x.parquet", columns={"text": "sentence"})
    assert [row.text for row in rows] == ["a", "b"]
    (tmp_path / "y.json").write_text(json.dumps([{"text": "c"}, {"text": "d"}]))
    assert [row.text for row in read(tmp_path / "y.json")[0]] == ["c", "d"]
    (tmp_path / "z.txt").write_text("one\ntwo\n\n\nthree\n")
    rows, _ = read(tmp_path / "z.txt")
    assert [(row.text, row.id) for row in rows] == [("one\ntwo", "z:1"), ("three", "z:5")]
    assert [row.text for row in read(tmp_path / "z.txt", unit="file")[0]] == [
        "one\ntwo\n\n\nthree\n"
    ]
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    assert "damaged Parquet" in next(iter(read(tmp_path / "broken.parquet")[1].reasons))


def test_a_file_that_breaks_off_is_an_error_however_many_rows_stand_before(tmp_path):
    rows = [json.dumps({"text": f"{n * 7919 % 1000}"}) for n in range(2000)]
    whole = gzip.compress("\n".join(rows).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "list.json").write_text(f"[{', '.join(rows)} {rows[0]}]")
    for name in ("cut.jsonl.gz", "list.json"):
        found, reading = read(tmp_path / name)  # limit 1: what can be read
        assert len(found) > 500 and reading.rows_quarantined == 1
        with pytest.raises(DataError, match="1 of 1 files cannot be read to the end") as error:
            list(Reading([tmp_path / name], Document, limit=0.99))
        assert name in error.value.where


def test_an_empty_file_is_an_error(tmp_path):
    (tmp_path / "x.jsonl").touch()
    with pytest.raises(DataError, match="hold no rows"):
        read(tmp_path / "x.jsonl")


def test_where_files_are_looked_for(tmp_path, monkeypatch):
    work, data = tmp_path / "work", tmp_path / "data with ไทย"
    (data / "th").mkdir(parents=True)
    work.mkdir()
    monkeypatch.chdir(work)
    for name in ("b.jsonl", "a.jsonl.gz", "notes.md", "c.parquet"):
        (data / "th" / name).touch()
    names = [path.name for path in find("th", [data])]
    assert names == ["a.jsonl.gz", "b.jsonl", "c.parquet"]
    assert [path.name for path in find("th/*.jsonl*", [data])] == ["a.jsonl.gz", "b.jsonl"]
    assert find(data / "th" / "b.jsonl") == find("th/b.jsonl", [data])
    (work / "th").mkdir()
    (work / "th" / "b.jsonl").touch()
    assert find("th/b.jsonl", [data]) == [work / "th" / "b.jsonl"]  # the working folder first
    with pytest.raises(DataError, match="there is no data file") as error:
        find("th/bb.jsonl", [data])
    assert "did you mean" in str(error.value) and "b.jsonl" in str(error.value)
    assert str(data) in str(error.value) and str(work) in str(error.value)
    with pytest.raises(DataError, match="not a kind of data file"):
        find("th/notes.md", [data])
