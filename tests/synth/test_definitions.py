"""Terms that laws define: what is found and left out, questions that do not leak, searches that are true."""

import json
from dataclasses import replace

import pytest

from endonym.core.errors import DataError
from endonym.data.sections import Section
from endonym.lang.script import in_language
from endonym.rollouts.library import Library
from endonym.synth import definitions, lookups
from endonym.tasks.base import task_for

# Two invented acts; the minister is defined alike in both.
KITES = """ในพระราชบัญญัตินี้
“ว่าว” หมายความว่า สิ่งที่ลอยด้วยลมและมีเชือกผูกไว้*
“สนามว่าว” หมายความว่า  ที่โล่งซึ่งนายทะเบียน
“นายว่าว” หมายความว่า ผู้ซึ่งได้รับใบอนุญาตให้ชักว่าว
“เครื่องว่าว” หมายความว่า สิ่งดังต่อไปนี้
(1) เชือก
(2) โครงไม้ไผ่
“ลม” หมายความรวมถึงอากาศที่พัด
“รัฐมนตรี” หมายความว่า รัฐมนตรีผู้รักษาการตามพระราชบัญญัตินี้"""
BOATS = """ในพระราชบัญญัตินี้
“เรือ” หมายความว่า พาหนะทางน้ำ
“เรือ” หมายความว่า พาหนะที่ลอยได้
“นายว่าว” หมายความว่า ลูกเรือที่ดูแลใบเรือ
“รัฐมนตรี” หมายความว่า รัฐมนตรีผู้รักษาการตามพระราชบัญญัตินี้"""
SECTIONS = [
    Section("k/3", "พระราชบัญญัติว่าว พ.ศ. 2500", "3", "", KITES, "th", "invented", "CC0-1.0"),
    Section("b/4", "พระราชบัญญัติเรือ พ.ศ. 2501", "4", "", BOATS, "th", "invented", "CC0-1.0"),
]
KOREAN = """이 법에서 사용하는 용어의 뜻은 다음과 같다.
  1. "연"이란 바람에 뜨는 놀이 기구를 말한다.
  2. "연날리기장"(鳶場)이란 연을 날리는 넓은 곳을 말한다. <개정 2020.1.1>
  3. "연줄"이란 다음 각 목의 것을 말한다.
    가. 실
② "바람"이란 공기의 움직임을 말한다."""


def found():
    return definitions.definitions(SECTIONS)


def test_definitions_are_found_whole_and_what_is_left_out_is_counted():
    kept, left_out = found()
    assert [(one.book[-9:-5], one.title, one.text) for one in kept] == [
        (SECTIONS[0].book[-9:-5], "ว่าว", "สิ่งที่ลอยด้วยลมและมีเชือกผูกไว้"),
        (SECTIONS[0].book[-9:-5], "สนามว่าว", "ที่โล่งซึ่งนายทะเบียน"),
        (SECTIONS[0].book[-9:-5], "นายว่าว", "ผู้ซึ่งได้รับใบอนุญาตให้ชักว่าว"),
        (SECTIONS[1].book[-9:-5], "นายว่าว", "ลูกเรือที่ดูแลใบเรือ"),
    ]
    assert dict(left_out) == {
        "goes on in another line": 1,
        "defined twice in its law": 2,
        "another law says the same": 2,
    }
    assert len({one.id for one in kept}) == 4 and {one.number for one in kept} == {"3", "4"}
    assert {one.licence for one in kept} == {"CC0-1.0"}


def test_korean_definitions_end_before_their_verb():
    law = Section("kr/2", "연날리기법", "2", "정의", KOREAN, "ko")
    kept, left_out = definitions.definitions([law])
    assert [(one.title, one.text) for one in kept] == [
        ("연", "바람에 뜨는 놀이 기구"),
        ("연날리기장", "연을 날리는 넓은 곳"),
    ]
    assert dict(left_out) == {"goes on in another line": 1}


def test_a_language_that_nobody_wrote_is_an_error():
    with pytest.raises(DataError, match="how laws define terms"):
        definitions.definitions([replace(SECTIONS[0], language="vi")])


def test_halves_part_the_terms_of_a_law():
    terms = [replace(SECTIONS[0], id=str(n), title=f"คำ {n}") for n in range(200)]
    asked, text = (definitions.of_halves(terms, [half]) for half in ("asked", "text"))
    assert not {one.title for one in asked} & {one.title for one in text}
    assert len(asked) + len(text) == 200 and 70 < len(asked) < 130
    assert definitions.of_halves(terms, []) == terms
    elsewhere = definitions.of_halves([replace(one, book="อื่น") for one in terms], ["asked"])
    assert {one.title for one in elsewhere} != {one.title for one in asked}
    with pytest.raises(DataError, match="half"):
        definitions.of_halves(terms, ["never"])


@pytest.mark.parametrize("language", ["th", "ko"])
def test_test_questions_are_no_training_questions_and_gold_is_right(language):
    terms = found()[0] if language == "th" else definitions.definitions(
        [Section("kr/2", "연날리기법", "2", "정의", KOREAN, "ko")]
    )[0]  # fmt: skip
    train, test = (definitions.items(terms, split) for split in ("train", "test"))
    asked = [item.messages[0]["content"] for item in train + test]
    assert len(set(asked)) == len(asked)
    assert len(train) == 4 * len(terms) and len(test) == 2 * len(terms)
    by_id = {one.id: one for one in terms}
    for item in train + test:
        one = by_id[item.id.rsplit("/", 2)[0]]
        assert one.title in item.messages[0]["content"] and one.book in item.messages[0]["content"]
        assert item.answer == one.text and task_for("answer").check(item, one.text).score == 1
        other = next(each for each in terms if each.text != one.text)
        assert task_for("answer").check(item, other.text).score == 0
        assert in_language(item.messages[0]["content"], language)
    assert [row.messages[-1]["content"] for row in definitions.conversations(terms)] == [
        item.answer for item in train
    ]
    # the first so many items ask about all terms
    assert len({item.answer for item in test[: len(terms)]}) == len(terms)


def test_texts_say_law_and_term_before_the_meaning():
    terms = found()[0]
    rows = list(definitions.passages(terms))
    assert len({row.text for row in rows}) == 6 * len(terms)
    for row in rows:
        one = next(each for each in terms if row.id.rpartition("/")[0] == each.id)
        end = row.text.index(one.text)
        assert 0 <= row.text.index(one.title) < end and 0 <= row.text.index(one.book) < end
    asked = {item.messages[0]["content"] for item in definitions.items(terms, "train")}
    assert {row.text.partition("\n")[0] for row in definitions.answered(terms)} == asked
    (whole, *_) = definitions.whole(SECTIONS)
    assert whole.text == f"{SECTIONS[0].book} 3\n{KITES}"
    with pytest.raises(DataError, match="defines no term"):
        list(definitions.passages(SECTIONS))


def test_searches_find_what_is_asked_and_say_what_was_found():
    law = Section("c/7", "ประมวลสมมุติ", "7", "", "ห้ามผู้ใดชักว่าวในเวลากลางคืน", "th")
    shelf = [*found()[0], law]
    talks = list(lookups.conversations(shelf, top=1))
    assert {talk.task for talk in talks} == {"definitions", "sections"}
    by_id = {one.id: one for one in shelf}
    for talk in talks:
        one = by_id[talk.id.removeprefix("lookups/").rpartition("/")[0]]
        question, call, told, said = talk.messages
        query = call["tool_calls"][0]["function"]["arguments"]["query_list"]
        library = Library(shelf, "th", 1)
        assert told["content"] == library.search_law(query)
        assert [each["text"] for each in json.loads(told["content"])] == [said["content"]]
        assert said["content"] == one.text and one.book in query[0]
        assert (one.title or one.number) in question["content"]
    assert talks == list(lookups.conversations(shelf, top=1))
    assert talks != list(lookups.conversations(shelf, top=1, seed=1))
    logs = list(lookups.documents(shelf, top=1))
    assert len(logs) == len(talks)
    assert "search_law" in logs[1].text and logs[1].text.endswith(talks[1].messages[-1]["content"])


def test_what_a_search_does_not_find_is_not_practised():
    near = [
        replace(SECTIONS[0], id="a", title="ว่าว", text="ก"),
        replace(SECTIONS[0], id="b", title="ว่าวว่าว", text="ว่าว ว่าว ว่าว ว่าว"),
    ]
    library = Library(near, "th", 1)
    missed = [one for one in near if library.search([f"{one.title} {one.book}"]) != [one]]
    assert missed
    practised = {talk.id.split("/")[1] for talk in lookups.conversations(near, top=1)}
    assert practised == {one.id for one in near} - {one.id for one in missed}
    long = [replace(SECTIONS[0], id="a", title="ว่าว", text="ยาว" * 600)]
    assert not list(lookups.conversations(long, top=1))
