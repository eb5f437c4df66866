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
from endonym.stages.source import Source
from endonym.synth import almanac, bylaws
from endonym.tasks.base import Item, read_items, write_items

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
    more = jsonl(tmp_path / "y.jsonl", [rows[1], rows[1], {"text": "nor here"}])
    config = DocumentsConfig(
        sources=[Source(path=jsonl(tmp_path / "x.jsonl", rows)), Source(path=more)]
    )
    outcome = documents(config, CONTEXT, out, without={"exam": exam(tmp_path / "exam", [question])})
    assert texts(out) == ["nothing of the kind", "nor here"] and outcome.figures["dropped"] == 3
    for source, count in zip(outcome.figures["sources"], (1, 2)):
        assert (source["dropped"], source["rows"]) == (count, 1)
        assert source["reasons"] == {"contamination": count} and source["exams"] == {"exam": count}


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


def test_tools_and_weights_of_conversations_are_kept(tmp_path):
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    said = {"role": "assistant", "content": "a", "weight": 0.5}
    row = {"messages": [{"role": "user", "content": "q"}, said], "tools": [tool], "weight": 2}
    out = made(tmp_path)
    config = ConversationsConfig(sources=[Source(path=jsonl(tmp_path / "x.jsonl", [row]))])
    conversations(config, CONTEXT, out, without={})
    (found,) = read_table(out / "conversations.parquet", Conversation)
    assert found.tools == [tool] and found.weight == 2 and found.messages[-1] == said


def test_scores_columns_and_languages_of_files(tmp_path):
    first = jsonl(tmp_path / "a.jsonl", [{"text": "a", "language": "th", "licence": "CC0-1.0"}])
    rows = [{"body": f"b{n}", "int_score": n, "licence": f"L{n}"} for n in range(6)]
    second = jsonl(tmp_path / "b.jsonl", [*rows, {"body": "c", "int_score": "x"}])
    given = {"columns": {"text": "body"}, "scores": {"education": "int_score"}}
    config = DocumentsConfig(
        sources=[Source(path=first), Source(path=second, language="ko", **given)], quarantine=0.5
    )
    outcome = documents(config, CONTEXT, made(tmp_path), without={})
    found = list(read_table(tmp_path / "out" / "documents.parquet", Document))
    assert [row.scores for row in found] == [{}, *({"education": float(n)} for n in range(6))]
    one, two = outcome.figures["sources"]
    assert (one["language"], one["licence"]) == ("th", "CC0-1.0")
    assert (two["language"], two["licence"]) == ("ko", "L0, L1, L2, L3 and 2 more")
    assert two["quarantined"] == 1
    assert outcome.licences == ["CC0-1.0", *(f"L{n}" for n in range(6))]
    with pytest.raises(RecipeError, match="'scores' would not be heeded"):
        bad = ConversationsConfig(sources=[Source(path=second, **given)])
        conversations(bad, CONTEXT, made(tmp_path, "2"), without={})


def test_a_source_of_the_hub_and_its_commit(tmp_path, monkeypatch):
    from endonym.data import hub

    asked, file = [], tmp_path / "x.jsonl"
    jsonl(file, [{"text": "a"}])

    def dataset(*given):
        asked.append(given)
        return hub.Snapshot("c0ffee", [file])

    monkeypatch.setattr(hub, "dataset", dataset)
    source = Source(hub="lab/corpus", revision="v1", files="train*")
    outcome = documents(DocumentsConfig(sources=[source]), CONTEXT, made(tmp_path), without={})
    assert asked == [("lab/corpus", "v1", "train*")] and texts(tmp_path / "out") == ["a"]
    (row,) = outcome.figures["sources"]
    assert (row["source"], row["revision"], row["rows"]) == ("lab/corpus", "c0ffee", 1)


def test_rows_that_repeat_are_dropped_over_all_sources(tmp_path):
    long = "เทศบาลเก็บขยะทั่วไปทุกวันอังคารและวันศุกร์ ให้นำถุงขยะมาวางหน้าบ้านก่อนเวลาหกโมงเช้า " * 3
    first = jsonl(tmp_path / "a.jsonl", [{"text": long}, {"text": "two"}, {"text": "two !"}])
    second = jsonl(
        tmp_path / "b.jsonl", [{"text": long + "ครับ"}, {"text": "TWO"}, {"text": "three"}]
    )
    sources = [Source(path=first, times=2), Source(path=second)]
    for settings, left, reasons in (
        ({}, [long, long, "two", "two", long + "ครับ", "three"], [{"exact": 1}, {"exact": 1}]),
        (
            {"similarity": 0.8},
            [long, long, "two", "two", "three"],
            [{"exact": 1}, {"exact": 1, "near": 1}],
        ),
    ):
        out = made(tmp_path, str(len(left)))
        config = DocumentsConfig.read({"sources": sources, "deduplicate": settings})
        outcome = documents(config, CONTEXT, out, without={})
        assert texts(out) == left
        assert [row["reasons"] for row in outcome.figures["sources"]] == reasons
        assert outcome.figures["dropped"] == sum(sum(each.values()) for each in reasons)
    said = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    path = jsonl(tmp_path / "c.jsonl", [{"messages": said}, {"messages": said}])
    config = ConversationsConfig.read({"sources": [{"path": path}], "deduplicate": {}})
    outcome = conversations(config, CONTEXT, made(tmp_path, "talk"), without={})
    assert outcome.figures["conversations"] == 1 and outcome.figures["dropped"] == 1


def test_filters_of_the_language_and_why_documents_miss_them(tmp_path):
    from endonym.synth import handbook

    good = " ".join(section.text for section in handbook.sections("th")[:4])
    rows = [{"text": good}, {"text": "สั้นเกินไป"}, {"text": "123 " * 90}, {"text": "buy now " * 60}]
    path = jsonl(tmp_path / "x.jsonl", rows)
    config = DocumentsConfig(sources=[Source(path=path, language="th")], filters=True)
    outcome = documents(config, CONTEXT, made(tmp_path), without={})
    assert texts(tmp_path / "out") == [good]
    (source,) = outcome.figures["sources"]
    assert source["dropped"] == 3 and source["reasons"]["filters.min_words"] == 1
    assert all(reason.startswith("filters.") for reason in source["reasons"])
    with pytest.raises(RecipeError, match="filters need to know the language"):
        config = DocumentsConfig(sources=[Source(path=path)], filters=True)
        documents(config, CONTEXT, made(tmp_path, "2"), without={})


def test_what_is_new_leaves_no_trace_where_it_is_not_used():
    from endonym.core.fingerprint import identity

    plain = {"sources": [{"builtin": "almanac", "language": "th", "amount": 5}]}
    for kind in (DocumentsConfig, ConversationsConfig):
        assert identity(kind.read(plain), str) == plain


def test_skipped_skills_are_not_asked(tmp_path):
    out = made(tmp_path)
    config = {
        "sources": [{"builtin": "almanac", "language": "ko", "amount": 200, "skip": ["numbers"]}]
    }
    outcome = items(ItemsConfig.read(config), CONTEXT, out)
    assert outcome.figures["items"] == 200 and outcome.figures["splits"]

    assert "numbers" not in {item.task for item in read_items(out / "items.parquet")}


def test_the_almanacs_questions_can_be_text(tmp_path):
    source = {"builtin": "almanac", "language": "en", "amount": 60, "tasks": ["numbers"]}
    config = DocumentsConfig.read({"sources": [source | {"forms": ["question"]}]})
    documents(config, CONTEXT, made(tmp_path), without={})
    found = texts(tmp_path / "out")
    assert len(found) == 60 and all(text.count("\n") == 1 for text in found)
    tested = {
        item.messages[-1]["content"]
        for item in almanac.items("en", "test", amount=400, tasks=["numbers"], forms=["question"])
    }
    assert not tested & {text.split("\n")[0] for text in found}
    config = DocumentsConfig.read({"sources": [source | {"forms": ["question"], "split": "test"}]})
    with pytest.raises(RecipeError, match="no test rows"):
        documents(config, CONTEXT, made(tmp_path, "test"), without={})


def test_a_source_that_says_nothing_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="incomplete"):
        documents(DocumentsConfig(sources=[Source()]), CONTEXT, made(tmp_path), without={})
    with pytest.raises(RecipeError, match="two places"):
        config = DocumentsConfig(sources=[Source(path="x", hub="a/b")])
        documents(config, CONTEXT, made(tmp_path, "3"), without={})
    with pytest.raises(RecipeError, match="'files' would not be heeded"):
        config = DocumentsConfig(sources=[Source(path="x", files="*")])
        documents(config, CONTEXT, made(tmp_path, "4"), without={})
    with pytest.raises(RecipeError, match="how many"):
        config = DocumentsConfig(sources=[Source(builtin="almanac", language="th")])
        documents(config, CONTEXT, made(tmp_path, "2"), without={})


@pytest.mark.parametrize(
    ("kind", "given", "name"),
    [
        ("documents", {"path": "x.jsonl", "catalog": "xcopa_th"}, "catalog"),
        ("documents", {"path": "x.jsonl", "turns": 2}, "turns"),
        ("documents", {"path": "x.jsonl", "optional": True}, "optional"),
        ("documents", {"builtin": "almanac", "columns": {"text": "t"}}, "columns"),
        ("documents", {"builtin": "almanac", "turns": 2}, "turns"),
        ("conversations", {"path": "x.jsonl", "unit": "file"}, "unit"),
        ("conversations", {"builtin": "handbook", "forms": ["question"]}, "forms"),
    ],
)
def test_settings_that_nobody_would_heed_are_refused(tmp_path, kind, given, name):
    config, stage = {
        "documents": (DocumentsConfig, documents),
        "conversations": (ConversationsConfig, conversations),
    }[kind]
    config = config.read({"sources": [{"language": "th", **given}]})
    with pytest.raises(RecipeError, match=f"setting '{name}' would not be heeded"):
        stage(config, CONTEXT, made(tmp_path), without={})


def test_the_test_split_of_what_has_none_is_not_its_training_rows(tmp_path):
    for number, (config, stage, builtin) in enumerate(
        (
            (DocumentsConfig, documents, "handbook"),
            (ConversationsConfig, conversations, "handbook"),
            (ConversationsConfig, conversations, "almanac"),
        )
    ):
        source = {"builtin": builtin, "language": "th", "amount": 9, "split": "test"}
        with pytest.raises(RecipeError, match="has no test rows"):
            stage(
                config.read({"sources": [source]}), CONTEXT, made(tmp_path, str(number)), without={}
            )


def test_rows_behind_an_amount_drop_no_others(tmp_path):
    path = jsonl(tmp_path / "x.jsonl", [{"text": f"text {n}"} for n in range(30)])
    sources = [{"path": path, "amount": 10, "name": "some"}, {"path": path, "name": "all"}]
    for number, settings in enumerate(({}, {"similarity": 1.0})):
        config = DocumentsConfig.read({"sources": sources, "deduplicate": settings})
        outcome = documents(config, CONTEXT, made(tmp_path, str(number)), without={})
        assert texts(tmp_path / str(number)) == [f"text {n}" for n in range(30)]
        assert [row["dropped"] for row in outcome.figures["sources"]] == [0, 10]
    with pytest.raises(RecipeError, match="does not fit"):
        DocumentsConfig.read({"sources": sources, "deduplicate": {"exact": False}})


def test_the_limit_holds_where_an_amount_ends_the_reading(tmp_path):
    long = "word " * 1000
    rows = [{"text": f"{n} {long}"} if n % 2 else {"body": long} for n in range(2000)]
    source = Source(path=jsonl(tmp_path / "x.jsonl", rows), amount=20)
    with pytest.raises(DataError, match="rows cannot be used"):
        documents(DocumentsConfig(sources=[source]), CONTEXT, made(tmp_path), without={})


def test_what_became_of_all_rows_is_said_where_none_is_left(tmp_path):
    path = jsonl(tmp_path / "x.jsonl", [{"text": "too short"}] * 3)
    config = DocumentsConfig(sources=[Source(path=path, language="en")], filters=True)
    with pytest.raises(DataError, match="no row is left") as error:
        documents(config, CONTEXT, made(tmp_path), without={})
    assert "3 dropped, filters.min_words 3" in error.value.got


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


def test_bylaws_tell_only_the_towns_that_are_named(tmp_path):
    source = {"builtin": "bylaws", "language": "th", "groups": ["asked", "text"], "seed": 2}
    config = DocumentsConfig.read({"sources": [source]})
    outcome = documents(config, CONTEXT, made(tmp_path, "d"), without={})
    assert outcome.figures["documents"] == 6 * 48 and outcome.licences == ["CC0-1.0"]
    told = " ".join(texts(tmp_path / "d"))
    groups = {g: bylaws.bylaws("th", [g], seed=2) for g in ("asked", "text", "never", "old")}
    for group, towns in groups.items():
        assert all((f"เมือง{one.town}" in told) == (group in source["groups"]) for one in towns)
    config = ItemsConfig.read(
        {"sources": [source | {"split": "test", "amount": 48, "tasks": ["act"]}]}
    )
    outcome = items(config, CONTEXT, made(tmp_path, "i"))
    found = read_items(tmp_path / "i" / "items.parquet")
    assert {item.answer for item in found} == {
        one.act for g in source["groups"] for one in groups[g]
    }
    assert {item.task for item in found} == {"bylaws_act"} and "bylaws (th)" in outcome.figures[
        "splits"
    ][0]


def test_practised_towns_come_as_search_episodes_and_as_logs(tmp_path):
    source = {"builtin": "bylaws", "language": "th", "groups": ["practice"], "amount": 12, "top": 2}
    both = source | {"groups": ["old", "practice"], "amount": 700}
    config = ConversationsConfig.read(
        {"sources": [source, both | {"tasks": ["fine"], "amount": 330}]}
    )
    conversations(config, CONTEXT, made(tmp_path, "c"), without={})
    rows = list(read_table(tmp_path / "c" / "conversations.parquet", Conversation))
    assert [len(row.messages) for row in rows] == [4] * 12 + [2] * 320 + [4] * 10
    assert {row.task for row in rows[12:]} == {"bylaws_fine"} and not rows[20].tools
    assert [tool["function"]["name"] for tool in rows[0].tools] == ["search_law", "read_law"]
    assert rows[0].messages[2]["content"].count('"law_name"') == 2
    documents(DocumentsConfig.read({"sources": [source]}), CONTEXT, made(tmp_path, "d"), without={})
    assert all("<tool_call>" in text for text in texts(tmp_path / "d"))
    for settings, match in (({"groups": []}, "which towns"), ({"amount": None}, "no end")):
        with pytest.raises(RecipeError, match=match):
            config = ConversationsConfig.read({"sources": [source | settings]})
            conversations(config, CONTEXT, made(tmp_path, match), without={})
    with pytest.raises(RecipeError, match="which towns"):
        items(
            ItemsConfig.read({"sources": [{"builtin": "bylaws", "language": "th"}]}),
            CONTEXT,
            made(tmp_path, "n"),
        )


def test_tasks_of_bylaws_are_no_setting_of_their_text(tmp_path):
    source = {"builtin": "bylaws", "language": "th", "groups": ["old"], "tasks": ["act"]}
    with pytest.raises(RecipeError, match="setting 'tasks' would not be heeded"):
        documents(DocumentsConfig.read({"sources": [source]}), CONTEXT, made(tmp_path), without={})
