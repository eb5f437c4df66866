"""R11: whatever stands in a file, rows_in = rows_used + rows_quarantined, each with line and reason,
what is used can be written and read back, and memory stays flat."""

import gzip
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from endonym.core.errors import DataError
from endonym.data import files
from endonym.data.document import (
    Conversation,
    Document,
    Labelled,
    Preference,
    Prompt,
    read_table,
    write_table,
)
from endonym.data.files import find
from endonym.data.read import Reading

ASKED, SAID = {"role": "user", "content": "q"}, {"role": "assistant", "content": "ตอบ"}
GOOD = {
    Document: {"text": "ข้อความ"},
    Conversation: {"messages": [ASKED, SAID]},
    Preference: {"prompt": "q", "chosen": "a", "rejected": "b"},
    Labelled: {"prompt": "q", "completion": "a", "label": True},
    Prompt: {"prompt": "q", "answer": "4"},
}
KINDS = list(GOOD)


def encoded(row):
    return json.dumps(row, ensure_ascii=False).encode()


def check(path, kind, tmp_path, **given):
    """The rows of a file and the reasons; the accounts must agree to the row."""
    aside = tmp_path / "quarantine.jsonl"
    reading = Reading(find(path), kind, quarantine=aside, limit=1.0, **given)
    rows = list(reading)
    entries = (
        [json.loads(line) for line in aside.read_text().splitlines()] if aside.exists() else []
    )
    assert reading.rows_used == len(rows) and reading.rows_quarantined == len(entries)
    assert reading.rows_in == len(rows) + len(entries)
    assert all(entry["line"] >= 1 and entry["reason"] for entry in entries)
    assert sum(reading.reasons.values()) == len(entries)
    assert len({row.id for row in rows}) == len(rows)
    if rows:
        write_table(tmp_path / "t.parquet", rows)
        assert list(read_table(tmp_path / "t.parquet", kind)) == rows
    return rows, entries


@pytest.mark.parametrize("kind", KINDS)
def test_malformed_lines_among_good_ones(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_LINE", 1 << 16)
    good = encoded(GOOD[kind])
    name = next(iter(GOOD[kind]))
    bad = [
        good[:-1],
        b"{" + good,
        encoded({name: 3}),
        encoded({name: None}),
        encoded({}),
        b"[]",
        b'"text"',
        b"null",
        b"NaN",
        good.replace(b":", b"\x00:", 1),
        good[:-1] + b', "id": "\\ud800"}',
        good[:-1] + b', "language": "\\udfff"}',
        good[:-1] + b', "id": "\\u0000"}',
        good[:-2] + b"\xff" + good[-2:],
        b'{"x": ' + b"[" * 900 + b"]" * 900 + b"}",
        b"[" * 100_000,
        b'{"x": "' + b"y" * (1 << 17) + b'"}',
        b"1" * 5000,
    ]
    lines = [b"\xef\xbb\xbf" + good, *(part for line in bad for part in (line, good + b"\r"))]
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join(lines))
    rows, entries = check(path, kind, tmp_path)
    assert len(rows) == len(bad) + 1
    assert [entry["line"] for entry in entries] == list(range(2, 2 * len(bad) + 1, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_duplicate_ids(tmp_path, kind):
    row, name = GOOD[kind] | {"id": 7}, list(GOOD[kind])[-1]
    other = {
        "text": "b",
        "messages": [ASKED, SAID | {"content": "x"}],
        "rejected": "c",
        "label": False,
        "answer": "5",
    }
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join(map(encoded, [row, row | {name: other[name]}, row])))
    rows, entries = check(path, kind, tmp_path)
    assert [row.id for row in rows] == ["7", "7:2"]
    assert [entry["reason"] for entry in entries] == ["the same id and content once more"]


@pytest.mark.parametrize("kind", [Conversation, Preference, Labelled])
def test_roles_and_empty_answers(tmp_path, kind):
    def row(said):
        if kind is Conversation:
            return {"messages": [ASKED, said]}
        if kind is Preference:
            return {"prompt": [ASKED], "chosen": [said], "rejected": [SAID | {"content": "b"}]}
        return {"prompt": [ASKED], "completion": [said], "label": True}

    path = tmp_path / "x.jsonl"
    broken = [SAID | {"role": "narrator"}, SAID | {"content": " \n"}, SAID | {"content": None}]
    path.write_bytes(b"\n".join(encoded(row(said)) for said in [SAID, *broken]))
    rows, entries = check(path, kind, tmp_path)
    assert len(rows) == 1
    assert [entry["reason"] for entry in entries] == [
        "unknown role 'narrator'",
        "empty assistant turn",
        "assistant content is not a string but NoneType",
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_compressed_files_that_end_early(tmp_path, kind, packing):
    raw = b"\n".join(encoded(GOOD[kind] | {"task": f"{n * 7919}"}) for n in range(3000))
    pack = gzip.compress if packing == "gz" else zstandard.ZstdCompressor().compress
    path, whole = tmp_path / f"x.jsonl.{packing}", pack(raw)
    for size in (len(whole), len(whole) - 5, len(whole) // 2, 9):
        path.write_bytes(whole[:size])
        rows, entries = check(path, kind, tmp_path)
        assert len(entries) == (size != len(whole)) and len(rows) <= 3000
        assert all("truncated" in entry["reason"] for entry in entries)


@pytest.mark.parametrize("name", ["x.jsonl", "x.txt", "x.jsonl.gz"])
def test_empty_files(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(b"\n \n") if name.endswith("gz") else b"")
    with pytest.raises(DataError, match="hold no rows"):
        list(Reading(find(tmp_path / name), Document))


def test_values_that_only_columnar_files_hold(tmp_path):
    import datetime

    rows = [{"prompt": "q", "answer": 4, "when": None}, {"prompt": "q", "when": datetime.date.max}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    found, entries = check(tmp_path / "x.parquet", Prompt, tmp_path)
    assert [row.columns for row in found] == [{"answer": 4, "when": None}]
    assert "a value that JSON does not know: date" in entries[0]["reason"]


def test_scores(tmp_path):
    lines = [
        {"text": "a", "s": 4},
        {"text": "b", "s": None},
        {"text": "c"},
        {"text": "d", "s": "4"},
    ]
    lines += [{"text": "e", "s": True}, {"text": "f", "s": 2.5}]
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join([*map(encoded, lines), b'{"text": "g", "s": NaN}']))
    rows, entries = check(path, Document, tmp_path, scores={"education": "s"})
    assert [row.scores for row in rows] == [{"education": 4.0}, {}, {"education": 2.5}]
    assert [entry["reason"] for entry in entries] == [
        "no score s",
        "score s is not a number but '4'",
        "score s is not a number but True",
        "score s is not a number but nan",
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "name", "weight", "function"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
KEYS = (
    *("text", "messages", "conversations", "system", "prompt", "completion", "chosen", "rejected"),
    *("label", "instruction", "input", "output", "history", "tools", "weight", "margin", "id"),
    *("language", "source", "licence", "task", "preferred_output", "answer"),
)
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool", "system", "x"]), "content": JSON},
        optional={"weight": JSON, "tool_calls": JSON, "thinking": JSON},
    )
    | JSON,
    max_size=4,
)


@settings(max_examples=60)
@given(st.lists(st.dictionaries(st.sampled_from(KEYS), JSON | TURNS, max_size=7), min_size=1))
def test_any_json_is_used_or_set_aside(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for kind in KINDS:
        found, entries = check(folder / "x.jsonl", kind, folder)
        assert len(found) + len(entries) == len(rows)
        (folder / "quarantine.jsonl").unlink(missing_ok=True)


@settings(max_examples=150)
@given(st.lists(st.binary(max_size=40) | st.just(encoded(GOOD[Document])), max_size=20))
def test_any_bytes_are_used_or_set_aside(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("bytes")
    raw = b"\n".join(lines)
    (folder / "x.jsonl").write_bytes(raw)
    expected = [
        line
        for n, line in enumerate(raw.split(b"\n"))
        if not is_blank(line.removeprefix(b"\xef\xbb\xbf") if n == 0 else line)
    ]
    if expected:
        found, entries = check(folder / "x.jsonl", Document, folder)
        assert len(found) + len(entries) == len(expected)


def is_blank(line):
    try:
        return not line.decode().strip()
    except UnicodeDecodeError:
        return False


FLAT = """
import resource, sys
from pathlib import Path
from endonym.data.document import Document
from endonym.data.read import Reading
path = Path(sys.argv[1])
list(Reading([path.with_name("small.jsonl")], Document))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
reading = Reading([path], Document, limit=1.0)
rows = sum(1 for _ in reading)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(rows, reading.rows_quarantined, (after - before) // 1024)
"""


@pytest.mark.parametrize("name", ["line.jsonl", "bomb.jsonl.zst", "bomb.jsonl.gz", "long.json"])
def test_memory_stays_flat(tmp_path, name):
    """A line of 100 MB; some kilobytes that unpack to 1 GB; a list of 60 MB."""
    (tmp_path / "small.jsonl").write_bytes(encoded({"text": "a"}))
    path, good = tmp_path / name, encoded({"text": "a"})
    if name == "line.jsonl":
        with path.open("wb") as out:
            out.write(good + b'\n{"text": "')
            for _ in range(100):
                out.write(b"x" * 1_000_000)
            out.write(b'"}\n' + good)
    elif name == "long.json":
        path.write_bytes(b"[" + b",".join([encoded({"text": "x" * 60_000})] * 1000) + b"]")
    elif name.endswith("zst"):
        packer = zstandard.ZstdCompressor(level=1).compressobj()
        with path.open("wb") as out:
            for _ in range(256):
                out.write(packer.compress(b"x" * (1 << 22)))
            out.write(packer.flush())
    else:
        with gzip.open(path, "wb", compresslevel=1) as out:
            for _ in range(100):
                out.write(b"x" * (1 << 22))
    done = subprocess.run(
        [sys.executable, "-c", FLAT, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    used, aside, grown = map(int, done.stdout.split())
    assert (used, aside) == {"line.jsonl": (2, 1), "long.json": (1000, 0)}.get(name, (0, 1))
    assert grown < 300, f"{grown} MiB more for {name}"


def test_archives_are_not_unpacked_and_patterns_stay_where_they_are(tmp_path, monkeypatch):
    import zipfile

    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir(), outside.mkdir()
    for name in ("x.zip", "x.tar.gz", "x.jsonl.zip"):
        with zipfile.ZipFile(inside / name, "w") as out:
            out.writestr("../evil.jsonl", encoded({"text": "a"}))
        with pytest.raises(DataError, match="not a kind of data file"):
            find(inside / name)
    with pytest.raises(DataError, match="without data files"):
        find(inside)
    for name in ("state.json", "dataset_info.json", ".hidden.jsonl", "_meta.jsonl"):
        (inside / name).write_text("{}")
    with pytest.raises(DataError, match="no data file"):
        find(inside / "*")
    (outside / "secret.jsonl").write_bytes(encoded({"text": "a"}))
    (inside / "a.jsonl").write_bytes(encoded({"text": "a"}))
    (inside / "folder").symlink_to(outside, target_is_directory=True)
    assert find(inside) == [inside / "a.jsonl"]  # a linked folder is not walked into
    monkeypatch.chdir(inside)
    assert find("*.jsonl") == [inside / "a.jsonl"]
    assert not (tmp_path / "evil.jsonl").exists()
