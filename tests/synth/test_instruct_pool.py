"""The packed constraints: each can be said, checked, and obeyed by rule; editing keeps the reply's words."""

from collections import Counter
from random import Random

import pytest

from endonym.core.errors import DataError
from endonym.rewards.constraints import SIGNATURES, applies, obeys
from endonym.rewards.ifeval import IFEVAL
from endonym.synth.instruct import editing, pool
from endonym.synth.instruct.chat import Answer
from endonym.synth.instruct.composition import Query, composed, drawing, query_of
from endonym.synth.instruct.draft import Draft, is_plain
from endonym.synth.instruct.editing import EDITS
from endonym.synth.instruct.journal import Journal
from synth.scripted import Scripted

LANGUAGES = ("th", "ko", "en")
REPLIES = {
    "th": "การออกกำลังกายมีประโยชน์ต่อร่างกายมาก\nร่างกายที่แข็งแรงช่วยให้ทำงานได้ดี\n"
    "ควรออกกำลังกาย 3 วันต่อสัปดาห์\nการเดินเร็วก็เป็นการออกกำลังกายที่ดี\nน้ำดื่มสะอาดสำคัญต่อร่างกายครับ",
    "ko": "운동은 건강에 좋습니다.\n건강한 사람은 매일 걷습니다.\n물을 자주 마시는 습관도 중요합니다.\n"
    "잠을 일곱 시간 자면 건강에 도움이 됩니다.\n가족과 함께 걷는 시간을 만드세요.",
    "en": "Regular exercise keeps the body healthy.\nA healthy body needs sleep and water.\n"
    "NASA tells its crews to exercise daily. WHO agrees.\nWalking is exercise that costs nothing.\n"
    "Bicycle trips keep weekly plans varied.",
}
QUERIES = {"th": "ออกกำลังกายดีอย่างไร", "ko": "운동하면 뭐가 좋아?", "en": "Why is exercise good?"}


def query(language: str) -> Query:
    return Query("q", QUERIES[language], language, REPLIES[language])


def every_kind(edited: bool = False):
    """Every packed kind; `edited`: without those that only a model can obey."""
    kinds = [(lang, kind) for lang in LANGUAGES for kind in pool.kinds(lang)]
    return [
        pytest.param(lang, kind, id=f"{lang}-{kind.name}")
        for lang, kind in kinds
        if kind.edit or not edited
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_pack_has_thirty_kinds_and_all_of_ifeval_that_its_language_has(language):
    kinds = pool.kinds(language)
    assert len(kinds) >= 30
    has_case = language == "en"
    wanted = {name for name in IFEVAL if has_case or not name.startswith("change_case:")}
    assert wanted <= {kind.type for kind in kinds}
    assert sum(bool(kind.edit) for kind in kinds) >= 30


@pytest.mark.parametrize(("language", "kind"), every_kind())
def test_a_kind_is_said_in_several_ways_with_nothing_left_to_fill_in(language, kind):
    drawn = drawing(kind, query(language), Random(1))
    said = pool.said(kind, drawn, language)
    assert len(set(said)) == len(kind.say) >= 2
    assert not any("{" in text or "}" in text for text in said)
    check = pool.constraint_of(kind, drawn, language).check
    SIGNATURES[kind.type].bind("", **{k: v for k, v in check.items() if k != "type"})
    assert applies(check)
    varies = [str(drawn[name]) for name in kind.range if name in drawn]
    assert all(all(value in text for value in varies) for text in said)


@pytest.mark.parametrize(("language", "kind"), every_kind(edited=True))
def test_a_rule_makes_a_reply_obey(language, kind):
    for seed in range(60):  # a drawing may not fit: a letter that the reply has not, for one
        asked = query(language)
        drawn, random = drawing(kind, asked, Random(seed)), Random(seed)
        draft = Draft(asked.text, asked.reply, kind, drawn, language, random)
        reply = editing.edit(draft)
        if reply is not None and kind.name == "no_digits" and language == "th":
            assert not obeys(reply, {"type": kind.type} | draft.drawn)  # there is a 3 in it
            return
        if reply is not None:
            assert obeys(reply, {"type": kind.type} | draft.drawn), (reply, draft.drawn)
            pool.said(kind, draft.drawn, language)
            return
    pytest.fail("no drawing fits a reply of five lines")


def test_the_constrained_answers_are_those_that_the_checker_allows():
    import re

    for language in LANGUAGES:
        (kind,) = [kind for kind in pool.kinds(language) if kind.name == "constrained"]
        for text in kind.say:
            answers = re.findall(r"“([^”]+)”|‘([^’]+)’|\"([^\"]+)\"", text)
            assert len(answers) == 3
            for parts in answers:
                (answer,) = filter(None, parts)
                assert obeys(answer, {"type": kind.type, "language": language}), answer


def test_kinds_of_one_name_are_one_constraint_in_every_pack():
    by_name: dict[str, set] = {}
    for language in LANGUAGES:
        for kind in pool.kinds(language):
            by_name.setdefault(kind.name, set()).add((kind.type, str(sorted(kind.fixed.items()))))
    assert {name: kinds for name, kinds in by_name.items() if len(kinds) > 1} == {}


@pytest.mark.parametrize("name", sorted(EDITS))
def test_every_rule_is_used_by_a_pack(name):
    assert any(kind.edit == name for language in LANGUAGES for kind in pool.kinds(language))


def draft(reply: str, name: str, language: str = "th", seed: int = 0, **drawn) -> Draft:
    (kind,) = [kind for kind in pool.kinds(language) if kind.name == name]
    asked = Query("q", "ถามอะไรสักอย่าง", language, reply)
    drawn = drawing(kind, asked, Random(seed)) | drawn
    return Draft(asked.text, reply, kind, drawn, language, Random(seed))


def test_golden_edits_of_thai():
    two = "กินข้าวก่อน\nแล้วไปทำงาน"
    assert editing.edit(draft(two, "numbered")) == "1. กินข้าวก่อน\n2. แล้วไปทำงาน"
    assert editing.edit(draft(two, "paragraphs_stars")) == "กินข้าวก่อน\n***\nแล้วไปทำงาน"
    listed = "มีดังนี้\n1. ก\n2) ข\nเป็นต้น"
    assert editing.edit(draft(listed, "numbered")) == "มีดังนี้\n1. ก\n2. ข\nเป็นต้น"
    assert editing.edit(draft(listed, "bullets")).replace("*", "-") == "มีดังนี้\n- ก\n- ข\nเป็นต้น"
    assert editing.edit(draft("ก\n\nข", "lines_exactly")) == "ก\nข"
    assert editing.edit(draft("มี 1,250 บาท, ครับ", "no_comma")) == "มี 1250 บาท ครับ"
    assert editing.edit(draft("ปี 2567", "thai_digits")) == "ปี ๒๕๖๗"
    assert editing.edit(draft("ไปได้ค่ะ", "particle", text="ค่ะ")) == "ไปได้ค่ะ"
    assert editing.edit(draft("ไปได้ค่ะ", "particle", text="ครับ")) == "ไปได้ครับ"
    assert editing.edit(draft("ผมไปได้", "particle", text="ค่ะ")) is None
    assert editing.edit(draft("ไป", "quotation")) == '"ไป"'
    assert editing.edit(draft('เขาว่า "ไป"', "quotation")) is None


def test_numbers_follow_the_reply():
    one = draft(REPLIES["th"], "words_at_least")
    assert editing.edit(one) == REPLIES["th"]
    from endonym.lang.segment import words

    count = len(words(REPLIES["th"], "th"))
    assert count / 2 <= one.drawn["num_words"] <= count


def test_a_keyword_is_no_piece_of_another_word():
    known = draft("ปลา และ ปลาวาฬ กับ ต้นไม้ กลางทะเล", "keyword").keywords()
    assert "ต้นไม้" in known
    assert "ปลา" not in known


def test_a_piece_of_a_word_that_the_dictionary_lacks_is_no_keyword():
    known = draft("ดิพลอยด์เป็นแฮพลอยด์ในเซลล์สืบพันธุ์", "keyword").keywords()
    assert "อยด์" not in known and known


def test_a_number_at_the_head_of_a_line_is_no_marker_without_a_space():
    reply = editing.edit(draft("3.5 เมตร\n1. สูง\n2. ต่ำ\n-2 องศา", "numbered"))
    assert reply == "3.5 เมตร\n1. สูง\n2. ต่ำ\n-2 องศา"


def test_one_line_is_cut_into_sentences_where_marks_show_them():
    assert draft("We ate rice. Then we slept.", "bullets", "en").parts() == [
        "We ate rice.",
        "Then we slept.",
    ]
    assert draft("We ate rice. Good.", "bullets", "en").parts() == ["We ate rice. Good."]
    one = "เรากินข้าวแล้ว จากนั้นเราก็เข้านอนกันแต่หัวค่ำ"
    assert draft(one, "bullets").parts() == [one]


def test_highlights_do_not_touch():
    for seed in range(30):
        reply = editing.edit(draft("เลขอะตอมของธาตุคาร์บอน", "highlights", seed=seed))
        assert reply is None or "**" not in reply


def test_korean_keywords_lose_their_particles():
    known = draft("학교에서 친구를 만났습니다.", "keyword", "ko").keywords()
    assert "학교" in known and "친구" in known
    assert "학교에서" not in known


@pytest.mark.parametrize(
    "reply", ["```python\nx\n```", "คำตอบคือ \\boxed{3}", "| a | b |\n| 1 | 2 |", " "]
)
def test_code_formulas_and_tables_are_left_alone(reply):
    assert not is_plain(reply)


def test_a_language_without_constraints_says_what_to_do():
    with pytest.raises(DataError, match="has no constraints"):
        pool.kinds("lo")


# --- step 1 with a model -----------------------------------------------------------------------------


def test_what_a_model_adds_is_cleared_of_placeholders_and_repetitions(tmp_path):
    said = """Here are some constraints:
1. คำตอบต้องมีเครื่องหมายอัศเจรีย์
2. ใช้คำว่า {คำ} อย่างน้อย 2 ครั้ง
- ต้องมีคำว่า [ชื่อ] ในคำตอบ
- คำตอบต้องมีเครื่องหมายอัศเจรีย์
- สั้น
* ทุกบรรทัดต้องขึ้นต้นด้วยตัวเลข"""
    counts = Counter()
    chat = Journal(Scripted(lambda request: Answer(said, "stop")), tmp_path)
    found = pool.augmented(chat, "th", 60, 0.7, 0, counts)
    assert found == ["คำตอบต้องมีเครื่องหมายอัศเจรีย์", "ทุกบรรทัดต้องขึ้นต้นด้วยตัวเลข"]
    assert len(chat.chat.requests) == 2  # 50 a call, as released
    assert counts["placeholder"] == 4 and counts["length"] == 2
    assert counts["repeated"] == 1 + 3  # within the first answer; and all of the second
    assert counts["kept"] == 2
    shown = chat.chat.requests[0].messages[0]["content"]
    assert "Thai" in shown and "{" not in shown


def test_a_failed_call_of_step_1_is_counted(tmp_path):
    counts = Counter()
    assert (
        pool.augmented(Journal(Scripted(lambda request: None), tmp_path), "th", 50, 0.7, 0, counts)
        == []
    )
    assert counts == {"call failed": 1, "kept": 0, "beyond the amount": 0}


# --- step 6 --------------------------------------------------------------------------------------------


def test_queries_are_first_user_turns():
    user = {"role": "user", "content": " ถาม "}
    reply = {"role": "assistant", "content": "ตอบ"}
    assert query_of("a", [user, reply, user], "th") == Query("a", "ถาม", "th", "ตอบ")
    assert query_of("a", [user], "th", "เฉลย") == Query("a", "ถาม", "th", "เฉลย")
    assert (
        query_of("a", [{"role": "system", "content": "x"}, user], "th")
        == "does not begin with a user"
    )
    assert query_of("a", [user | {"content": " "}], "th") == "no text"


def test_all_constraints_are_drawn_evenly_and_told_in_the_language_of_their_pool():
    packed = {"th": pool.kinds("th"), "en": pool.kinds("en")}
    asked = [Query(str(n), f"ถาม {n}", "th") for n in range(2000)]
    pairs = list(composed(asked, packed, [], 2, 0))
    assert len(pairs) == 4000
    assert all(a.constraint != b.constraint for a, b in zip(pairs[::2], pairs[1::2]))
    names = Counter(pair.constraint.name for pair in pairs)
    assert not any(name.startswith(("all_", "capital_")) for name in names)  # no case in Thai
    assert max(names.values()) < 4 * min(names.values())
    told = Counter(pair.constraint.language for pair in pairs)
    assert 0.4 < told["en"] / 4000 < 0.55
    keyword = next(
        p for p in pairs if p.constraint.name == "keyword" and p.constraint.language == "en"
    )
    assert "word" in keyword.constraint.texts[0]
    assert (
        "ก" <= keyword.constraint.check["keywords"][0][0] <= "๛"
    )  # Thai words in an English sentence
