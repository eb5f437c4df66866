"""The handbooks: numbered sections, answers that stand in them, one test question a section."""

import pytest

from endonym.core.errors import DataError
from endonym.lang.normalize import compose
from endonym.lang.script import in_language
from endonym.lang.segment import sentences
from endonym.synth import handbook
from endonym.tasks.base import task_for


@pytest.mark.parametrize("language", ["th", "ko"])
def test_sections_are_numbered_and_in_their_language(language):
    sections = handbook.sections(language)
    assert [section.number for section in sections] == list(range(1, 25))
    for section in sections:
        assert in_language(section.text, language) and section.text == compose(section.text)
        assert section.title and len(section.text) > 60
        if language == "ko":
            assert 2 <= len(sentences(section.text)) <= 4
    documents = handbook.documents(language)
    assert len(documents) == 24 and documents[0].text.startswith("1. ")


@pytest.mark.parametrize("language", ["th", "ko"])
def test_questions_have_answers_in_the_text_and_one_a_section_is_held_out(language):
    train, test = handbook.items(language, "train"), handbook.items(language, "test")
    text = {section.number: section.text for section in handbook.sections(language)}
    for item in train + test:
        assert item.answer in text[int(item.id.split("/")[2])]
        task = task_for(item.kind)
        assert task.check(item, task.target(item)).score == 1.0
    assert [int(item.id.split("/")[2]) for item in test] == list(range(1, 25))
    assert len(train) >= 24
    asked = [item.messages[0]["content"] for item in train + test]
    assert len(set(asked)) == len(asked)


def test_conversations_are_the_training_questions():
    talks, items = list(handbook.conversations("ko")), handbook.items("ko", "train")
    assert [talk.messages[0] for talk in talks] == [item.messages[0] for item in items]
    assert [talk.messages[1]["content"] for talk in talks] == [item.answer for item in items]


def test_a_language_without_a_handbook_says_so():
    assert handbook.languages() == ["ko", "th"]
    with pytest.raises(DataError, match="no handbook in 'vi'"):
        handbook.sections("vi")
