"""Statutes as conversations: one a law and number, asked for in their own language or not at all."""

import pytest

from endonym.core.artifact import Artifact
from endonym.core.errors import DataError
from endonym.data.document import Conversation, read_table
from endonym.data.sections import Section, write_sections
from endonym.stages.recite import ReciteConfig, recite
from endonym.synth import bylaws
from eval.tiny import context, tokenizer

ACT = "พระราชบัญญัติป่าไม้"


def shelf(folder, name, rows):
    folder = folder / name
    folder.mkdir()
    write_sections(folder / "sections.parquet", rows)
    return Artifact(folder, {"files": {"sections.parquet": {}}, "licences": ["CC0-1.0"]})


def section(number, text, book=ACT, language="th"):
    return Section(f"{book}/{number}/{text}", book, number, "", text, language, "s", "CC0-1.0")


def run(folder, sections, **settings):
    out = folder / f"out{len(list(folder.iterdir()))}"
    out.mkdir()
    outcome = recite(ReciteConfig.read(settings), context(folder), out, sections=sections)
    return outcome, list(read_table(out / "conversations.parquet", Conversation))


def test_a_passage_is_asked_for_by_law_and_section(tmp_path):
    rows = [
        section("5", "ห้ามตัดไม้"),
        section("5/1", "ห้ามล่าสัตว์"),
        section("", "ทั้งฉบับ", book="ประกาศ"),
    ]
    outcome, talks = run(tmp_path, {"law": shelf(tmp_path, "a", rows)})
    said = [[message["content"] for message in talk.messages] for talk in talks]
    assert said == [
        ["ขอข้อมูลเกี่ยวกับพระราชบัญญัติป่าไม้ มาตรา 5", "ห้ามตัดไม้"],
        ["ขอข้อมูลเกี่ยวกับพระราชบัญญัติป่าไม้ มาตรา 5/1", "ห้ามล่าสัตว์"],
        ["ขอข้อมูลเกี่ยวกับประกาศ", "ทั้งฉบับ"],
    ]
    assert [message["role"] for message in talks[0].messages] == ["user", "assistant"]
    assert outcome.figures == {"conversations": 3, "repeated": 0, "characters": 30}
    assert outcome.licences == ["CC0-1.0"] and talks[0].language == "th"


def test_a_section_stands_once_however_often_it_was_cited(tmp_path):
    one = shelf(tmp_path, "a", [section("5", "first"), section("5", "second"), section("6", "x")])
    two = shelf(tmp_path, "b", [section("6", "again"), section("5", "other", book="ประกาศ")])
    outcome, talks = run(tmp_path, {"one": one, "two": two})
    assert [talk.messages[1]["content"] for talk in talks] == ["first", "x", "other"]
    assert (outcome.figures["conversations"], outcome.figures["repeated"]) == (3, 2)


def test_without_the_user_turn_the_passage_alone_is_learnt(tmp_path):
    sections = {"law": shelf(tmp_path, "a", bylaws.sections("th", ["text"]))}
    _, bare = run(tmp_path, sections, user_turn=False)
    _, asked = run(tmp_path, sections)
    assert len(bare) == len(asked) == 24
    assert [[m["role"] for m in talk.messages] for talk in bare] == [["assistant"]] * 24
    learnt = []
    for talks in (bare, asked):
        ((ids, is_learnt),) = tokenizer().training_rows(talks[0].messages)
        learnt.append([token for token, learn in zip(ids, is_learnt) if learn])
    assert learnt[0] == learnt[1]  # the passage and its end, nothing of the question


@pytest.mark.parametrize("language", ["th", "ko", "en"])
def test_every_book_of_bylaws_can_be_recited(tmp_path, language):
    rows = bylaws.sections(language, ["text", "asked"])
    _, talks = run(tmp_path, {"law": shelf(tmp_path, "a", rows)})
    asked = [talk.messages[0]["content"] for talk in talks]
    assert len(set(asked)) == 48
    assert all(row.book in question for row, question in zip(rows, asked))


def test_a_language_in_which_nobody_has_written_the_question(tmp_path):
    sections = {"law": shelf(tmp_path, "a", [section("5", "x", language="vi")])}
    with pytest.raises(DataError, match="user_turn = false"):
        run(tmp_path, sections)
    _, talks = run(tmp_path, sections, user_turn=False)
    assert talks[0].messages == [{"role": "assistant", "content": "x"}]
