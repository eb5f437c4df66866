"""The text stages as plain functions: splits, decontamination, quarantine, and what they report."""

import json

import pytest

from endonym.core.artifact import Artifact
from endonym.core.console import Console
from endonym.core.context import Context
from endonym.core.errors import DataError, RecipeError
from endonym.data.document import Conversation, Document, read_table
from endonym.stages.conversations import ConversationsConfig, conversations
from endonym.stages.documents import DocumentsConfig, documents
from endonym.stages.items import ItemsConfig, items
from endonym.stages.sources import Source
from endonym.tasks.base import Item, write_items

CONTEXT = Context(console=Console(quiet=True))


def jsonl(path, rows):
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    return str(path)


def made(folder, name="out"):
    out = folder / name
    out.mkdir()
    return out


def texts(out):
    return [row.text for row in read_table(out / "documents.parquet", Document)]


def exam(folder, prompts):
    folder.mkdir()
    rows = [
        Item(
            id=str(n),
            kind="answer",
            task="t",
            messages=[{"role": "user", "content": p}],
            answer="x",
        )
        for n, p in enumerate(prompts)
    ]
    write_items(folder / "items.parquet", rows)
    return Artifact(folder, {"files": {"items.parquet": {}}, "address": "a", "kind": "items"})


def test_train_and_test_of_a_file_are_disjoint_and_complete(tmp_path):
    path = jsonl(tmp_path / "x.jsonl", [{"id": f"r{n}", "text": f"text {n}"} for n in range(400)])
    parts = {}
    for split in ("train", "test", ""):
        out = made(tmp_path, split or "all")
        source = Source(path=path, split=split, held_out=0.1, licence="CC0-1.0")
        outcome = documents(DocumentsConfig(sources=[source]), CONTEXT, out, without={})
        parts[split] = set(texts(out))
        assert outcome.licences == ["CC0-1.0"]
    assert not parts["train"] & parts["test"] and parts["train"] | parts["test"] == parts[""]
    assert 20 <= len(parts["test"]) <= 60  # 40 expected, 3.3 standard deviations


def test_rows_that_hold_an_exam_question_are_dropped_and_counted(tmp_path):
    question = "จังหวัดใดใช้อักษรย่อ ปข ในเอกสารราชการ"
    rows = [{"text": "nothing of the kind"}, {"text": f"ข้อสอบ: {question} ตอบ"}]
    out = made(tmp_path)
    config = DocumentsConfig(sources=[Source(path=jsonl(tmp_path / "x.jsonl", rows))])
    outcome = documents(config, CONTEXT, out, without={"exam": exam(tmp_path / "exam", [question])})
    assert texts(out) == ["nothing of the kind"] and outcome.figures["dropped"] == 1


def test_unreadable_rows_are_set_aside_below_the_limit_and_stop_the_run_above(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a"}\n{"text": \n{"text": "b"}\n', encoding="utf-8")
    out = made(tmp_path)
    config = DocumentsConfig(sources=[Source(path=str(path))], quarantine=0.5)
    outcome = documents(config, CONTEXT, out, without={})
    assert texts(out) == ["a", "b"] and outcome.figures["quarantined"] == 1
    set_aside = json.loads(next(out.glob("quarantine*.jsonl")).read_text())
    assert set_aside["line"] == 2 and "JSON" in set_aside["reason"]
    with pytest.raises(DataError, match="1 of 3 rows"):
        documents(
            DocumentsConfig(sources=[Source(path=str(path))]),
            CONTEXT,
            made(tmp_path, "2"),
            without={},
        )


def test_amount_and_times(tmp_path):
    out = made(tmp_path)
    source = Source(builtin="almanac", language="th", amount=5, times=3)
    documents(DocumentsConfig(sources=[source]), CONTEXT, out, without={})
    found = texts(out)
    assert len(found) == 15 and len(set(found)) == 5


def test_conversations_of_several_shapes(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"prompt": "q2", "completion": "a2"},
        {"instruction": "q3", "input": "", "output": "a3"},
    ]
    out = made(tmp_path)
    config = ConversationsConfig(sources=[Source(path=jsonl(tmp_path / "x.jsonl", rows))])
    conversations(config, CONTEXT, out, without={})
    found = [
        row.messages[-1]["content"]
        for row in read_table(out / "conversations.parquet", Conversation)
    ]
    assert found == ["a", "a2", "a3"]


def test_skipped_skills_are_not_asked(tmp_path):
    out = made(tmp_path)
    config = {
        "sources": [{"builtin": "almanac", "language": "ko", "amount": 200, "skip": ["numbers"]}]
    }
    outcome = items(ItemsConfig.read(config), CONTEXT, out)
    assert outcome.figures["items"] == 200 and outcome.figures["splits"]
    from endonym.tasks.base import read_items

    assert "numbers" not in {item.task for item in read_items(out / "items.parquet")}


def test_a_source_that_says_nothing_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="incomplete"):
        documents(DocumentsConfig(sources=[Source()]), CONTEXT, made(tmp_path), without={})
    with pytest.raises(RecipeError, match="how many"):
        config = DocumentsConfig(sources=[Source(builtin="almanac", language="th")])
        documents(config, CONTEXT, made(tmp_path, "2"), without={})


def test_questions_join_into_conversations_of_several_turns(tmp_path):
    sizes, content = {}, {}
    for turns in (1, 3):
        out = made(tmp_path, str(turns))
        source = Source(builtin="almanac", language="th", amount=20, turns=turns)
        conversations(ConversationsConfig(sources=[source]), CONTEXT, out, without={})
        rows = list(read_table(out / "conversations.parquet", Conversation))
        sizes[turns] = [len(row.messages) // 2 for row in rows]
        content[turns] = [message for row in rows for message in row.messages]
    assert sizes == {1: [1] * 20, 3: [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 1]}  # 18, then 1 and the last
    assert content[1] == content[3]
