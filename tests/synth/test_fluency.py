"""Pairs of natural and damaged sentences: of the kind they name, and the same ones again."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from endonym.core.errors import DataError
from endonym.data.document import Document
from endonym.lang.script import counts
from endonym.lang.segment import words
from endonym.synth import fluency, handbook

ENGLISH = Document(
    "1",
    "The town hall is open from nine to five. People who want to register must bring a passport.",
    "en",
    "test",
    "CC0-1.0",
)


def sides(pair):
    return pair.chosen[0]["content"], pair.rejected[0]["content"]


def test_each_sentence_once_with_a_worse_one_and_the_kind_of_damage():
    rows = list(fluency.pairs(handbook.documents("th") * 2, "th", seed=3))
    natural = [sides(row)[0] for row in rows]
    assert len(rows) > 60 and len(set(natural)) == len(natural)
    told = " ".join(document.text for document in handbook.documents("th"))
    assert all(sentence in told for sentence in natural)
    assert all(row.prompt == [] and len(row.chosen) == len(row.rejected) == 1 for row in rows)
    assert all(sides(row)[0] != sides(row)[1] for row in rows)
    kinds = Counter(row.task for row in rows)
    assert set(kinds) == set(fluency.KINDS) and min(kinds.values()) >= 5
    assert {row.licence for row in rows} == {handbook.LICENCE}


def test_damage_depends_on_the_sentence_and_the_seed_alone():
    told = handbook.documents("th")
    whole = {row.id: row for row in fluency.pairs(told, "th")}
    later = list(fluency.pairs(told[5:], "th"))
    assert later and all(whole[row.id] == row for row in later)
    other = {sides(row)[0]: sides(row)[1] for row in fluency.pairs(told, "th", seed=1)}
    assert sum(other[sides(row)[0]] != sides(row)[1] for row in later) > len(later) / 2


def many(kind, language, sentence):
    made = [fluency.damaged(sentence, language, kind, Random(n)) for n in range(30)]
    return {worse for worse in made if worse is not None}


THAI = "ส่วนวันอาทิตย์และวันหยุดราชการปิดทำการ"
KOREAN = "정오부터 한 시간은 점심시간입니다."


def test_a_pack_with_one_particle_has_no_other(monkeypatch):
    for sentence, language in ((THAI + "ครับ", "th"), (KOREAN, "ko")):
        whole = fluency._language(language)
        for particle in whole.particles:
            known = replace(whole, particles=(particle,))
            monkeypatch.setattr(fluency, "_language", lambda name, known=known: known)
            many("register", language, sentence)
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("language", "sentence"), [("th", THAI), ("ko", KOREAN), ("en", "People must bring a pass.")]
)
def test_what_each_kind_does(language, sentence):
    before = words(sentence, language)
    letters = sorted(filter(str.isalnum, sentence))
    for worse in many("order", language, sentence):
        assert sorted(filter(str.isalnum, worse)) == letters and worse != sentence
    for worse in many("spacing", language, sentence):
        assert "".join(worse.split()) == "".join(sentence.split()) and worse != sentence
    for worse in many("repeated", language, sentence):
        assert len(worse) > len(sentence)
        assert set(before) <= set(words(worse, language)) or language == "th"
    for worse in many("foreign", language, sentence):
        assert set(counts(worse)) - set(counts(sentence))
    assert all(many(kind, language, sentence) for kind in ("order", "spacing", "repeated"))
    end = sentence[-1]
    assert end != "." or all(w.endswith(".") for w in many("order", language, sentence))


def test_function_words_and_particles_are_those_of_the_pack():
    assert "ส่วนวันอาทิตย์วันหยุดราชการปิดทำการ" in many("function", "th", THAI)  # without "and"
    assert "ส่วนวันอาทิตย์และและวันหยุดราชการปิดทำการ" in many("function", "th", THAI)
    assert any("부터부터" in worse for worse in many("function", "ko", KOREAN))
    assert any("부터" not in worse for worse in many("register", "ko", KOREAN))
    polite = many("register", "th", "วันนี้ฉันไม่ได้ไปไหนเลยค่ะ")
    assert any(worse.endswith(("ครับ", "วะ", "ครับผม")) for worse in polite)


def test_kinds_can_be_named_and_must_be_possible():
    rows = list(fluency.pairs([ENGLISH], "en", kinds=["order", "spacing"]))
    assert len(rows) == 2 and {row.task for row in rows} <= {"order", "spacing"}
    assert "register" not in {row.task for row in fluency.pairs([ENGLISH] * 9, "en")}
    with pytest.raises(DataError, match="no damage 'register' can be done to 'en'"):
        list(fluency.pairs([ENGLISH], "en", kinds=["register"]))
    with pytest.raises(DataError, match="no damage 'ordre'") as error:
        list(fluency.pairs([ENGLISH], "en", kinds=["ordre"]))
    assert "order" in str(error.value)
    with pytest.raises(DataError, match="no word segmenter for 'lo'"):
        list(fluency.pairs([ENGLISH], "lo"))


def test_short_and_foreign_sentences_are_passed_over():
    told = Document("1", "ครับ\nThis line is in English and long enough.\n" + THAI, "th")
    assert [sides(row)[0] for row in fluency.pairs([told], "th")] == [THAI]
