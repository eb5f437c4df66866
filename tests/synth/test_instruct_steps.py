"""Steps 7 to 9: replies, what must not stand in them, the judge, and where a constraint is told."""

from collections import Counter
from math import sqrt

import pytest

from endonym.rewards.chat import Answer
from endonym.synth.instruct import emission, generation, judging
from endonym.synth.instruct.composition import Pair, Query
from endonym.synth.instruct.emission import Placement, Told, checked, keeps_literals, placed
from endonym.synth.instruct.journal import Journal
from endonym.synth.instruct.pipeline import Sample
from endonym.synth.instruct.pool import Constraint, constraint_of, form, kinds
from endonym.synth.instruct.running import Runner
from endonym.synth.instruct.verification import all_hold, foreign, named_scripts
from synth.scripted import Scripted, Tame

THAI = Constraint("bullets", "th", ["ตอบเป็นข้อ"], {"type": "bullets", "count": 2})


def pair(number: int = 0, constraint=THAI, language="th", text="ถาม") -> Pair:
    return Pair(Query(f"q{number}", f"{text} {number}", language), constraint)


# --- 7: generation ----------------------------------------------------------------------


def test_replies_that_were_cut_off_are_dropped_and_said_so(tmp_path):
    script = {
        "ถาม 0": [Answer("ดี", "stop"), Answer("ดี", "stop")],
        "ถาม 1": [Answer("ยาว", "length"), None],
        "ถาม 2": [Answer(" ", "stop"), Answer("ก", "stop")],
    }
    chat = Scripted(lambda request: script[request.messages[0]["content"]][request.seed - 7])
    told = [Told(pair(n), "", "plain", [{"role": "user", "content": f"ถาม {n}"}]) for n in range(3)]
    counts = Counter()
    found = generation.generated(Journal(chat, tmp_path), told, 2, 0.7, 4096, 7, counts)
    assert found == [["ดี"], [], ["ก"]]
    assert counts == {"kept": 2, "repeated": 1, "cut off": 1, "call failed": 1, "empty": 1}
    assert {each.max_tokens for each in chat.requests} == {4096}


# --- 7: verification ----------------------------------------------------------------------


def test_all_functions_of_a_constraint_must_hold_on_the_text_as_it_is_counted():
    head = "def evaluate(text, words, sentences):\n    "
    at_least_three, at_most_four = head + "return len(words) >= 3", head + "return len(words) <= 4"
    fails = head + "return 1 / (len(words) - 1) > 0"
    check = {"type": "function", "functions": [at_least_three, at_most_four, fails]}
    asked = [(reply, check, "th") for reply in ("แมวกินปลา", "กินข้าว", "เขาอ่านหนังสือทุกวันที่บ้าน")]
    assert all_hold(asked, Runner(Tame())) == [True, False, False]
    check = {"type": "function", "functions": [fails]}
    assert all_hold([("กินข้าว", check, "th")], Runner(Tame())) == [None]


def test_packed_checks_and_functions_are_verified_side_by_side():
    function = {
        "type": "function",
        "functions": ["def evaluate(text, words, sentences):\n    return True"],
    }
    lines = {"type": "lines", "count": 2, "relation": "exactly"}
    asked = [("ก", lines, "th"), ("ก", function, "th"), ("ก\nข", lines, "th")]
    assert all_hold(asked, Runner(Tame())) == [False, True, True]


@pytest.mark.parametrize(
    ("language", "asked", "reply", "reason"),
    [
        ("th", "แมวคืออะไร", "แมวคือสัตว์ \u4e00 ชนิดหนึ่ง", "foreign letters: Hani"),
        ("th", "ตัวอักษรจีนที่แปลว่าคนเขียนอย่างไร", "เขียนว่า 人", ""),
        ("th", "人 อ่านว่าอะไร", "人 อ่านว่า เหริน", ""),
        ("th", "ตัวอักษรจีนที่แปลว่าคนเขียนอย่างไร", "เขียนว่า человек", "foreign letters: Cyrl"),
        ("th", "แปลว่าแมวเป็นภาษาญี่ปุ่น", "猫 อ่านว่า ねこ", ""),
        ("th", "แมวคืออะไร", "A cat is an animal.", "no letter of the language"),
        ("th", "แมวคืออะไร", "A cat is an animal. แมว", "more Latin than own letters"),
        ("th", "แปลคำว่าแมวเป็นภาษาอังกฤษ", "cat", ""),
        ("th", "ความยาวคลื่นเขียนด้วยอะไร", "เขียนด้วย λ", ""),
        ("th", "สวัสดี", "สวัสดี γειά", "foreign letters: Grek"),
        ("th", "2+2", "4", ""),
        ("ko", "고양이가 뭐야?", "고양이는 貓입니다", "foreign letters: Hani"),
        ("ko", "고양이를 한자로 쓰면?", "貓입니다", ""),
        ("ko", "고양이를 중국어로 쓰면?", "貓입니다", ""),
        ("en", "What is a cat?", "An animal, แมว.", "foreign letters: Thai"),
        ("en", "What is cat in Thai?", "It is แมว.", ""),
    ],
)
def test_foreign_script_is_refused_unless_it_is_asked_for(language, asked, reply, reason):
    assert foreign(reply, asked, language) == reason


def test_an_instruction_asks_by_names_and_quoted_literals_and_not_by_the_letters_it_is_told_in():
    reply = "고양이는 แมว"
    assert foreign(reply, "고양이", "ko", "ตอบสั้น ๆ") == "foreign letters: Thai"
    assert foreign(reply, "고양이", "ko", "ใช้คำว่า “แมว”") == ""
    assert foreign("แมวคือ 猫", "แมว", "th", "ตอบโดยมีอักษรจีน") == ""


def test_a_languages_own_name_asks_for_no_other_script():
    assert named_scripts("ตอบเป็นภาษาไทยเท่านั้น", "th") == set()
    assert named_scripts("한국어로 답해 주세요", "ko") == set()


# --- 8 ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Good.\nScore: 9", 9.0),
        ("**Score: 8.5/10**", 8.5),
        ("score: 10\n", 10.0),
        ("Score: 11", None),
        ("Score: 9\nThat is all.", None),
        ("I give it a nine.", None),
        ("", None),
    ],
)
def test_a_score_is_the_last_line_or_none(text, score):
    assert judging.read(text) == score


def test_the_judge_sees_query_constraint_and_reply_and_a_failure_is_no_score(tmp_path):
    answers = {"ดี": Answer("Score: 9", "stop"), "แย่": Answer("hm", "stop"), "หาย": None}

    def script(request):
        text = request.messages[0]["content"]
        assert "ถามว่า" in text and "ตอบเป็นข้อ" in text and request.temperature == 0
        return next(answers[reply] for reply in answers if f"Reply:\n{reply}\n" in text)

    counts = Counter()
    samples = [("ถามว่า", "ตอบเป็นข้อ", reply, "th") for reply in answers]
    assert judging.scored(Journal(Scripted(script), tmp_path), samples, counts) == [9.0, None, None]
    assert counts == {"scored": 1, "unreadable": 1, "call failed": 1}


# --- 9 ----------------------------------------------------------------------


def test_half_of_the_constraints_are_system_prompts_and_8_of_17_others_are_plain():
    count = 4000
    told = [placed(pair(n), "ตอบเป็นข้อ", "th", Placement(), 0) for n in range(count)]
    places = Counter(each.place for each in told)
    assert abs(places["system"] / count - 0.5) < 3 * sqrt(0.25 / count)
    user = count - places["system"]
    share = 8 / 17
    assert abs(places["plain"] / user - share) < 3 * sqrt(share * (1 - share) / user)
    for each in told[:200]:
        roles = [message["role"] for message in each.messages]
        assert roles == (["system", "user"] if each.place == "system" else ["user"])
        query = each.pair.query.text
        if each.place == "system":
            assert each.messages[1]["content"] == query
            assert "ตอบเป็นข้อ" in each.messages[0]["content"]
        elif each.place == "plain":
            assert each.messages[0]["content"] == f"{query} ตอบเป็นข้อ"
        else:
            assert (
                query in each.messages[0]["content"] and "ตอบเป็นข้อ" in each.messages[0]["content"]
            )


@pytest.mark.parametrize("language", ["th", "ko", "en", "vi"])
def test_every_template_holds_the_query_once_and_the_constraint_once(language):
    here = form(language)
    for template in [here.plain, *here.user]:
        assert template.count("{query}") == template.count("{constraint}") == 1
    assert all(template.count("{constraint}") == 1 for template in here.system)
    if language != "vi":
        assert len(here.user) == 9 and len(here.system) >= 4


def test_braces_of_a_query_are_not_filled_in():
    text = "อธิบาย {constraint} และ {x}"
    told = placed(pair(text=text), "ตอบเป็นข้อ", "th", Placement(system=0, plain=1), 0)
    assert told.messages[0]["content"] == text + " 0 ตอบเป็นข้อ"


def made(language="en", text='Use the word "cat" 3 times.') -> Constraint:
    return Constraint("made/0", language, [text], {"type": "function", "functions": ["..."]})


def said(pairs, script=lambda request: None, translate=1.0, tmp=None):
    counts = Counter()
    chat = Journal(Scripted(script), tmp) if tmp else None
    return emission.texts(pairs, "th", chat, translate, 0, counts), counts


def test_a_made_constraint_is_translated_for_a_query_of_the_language(tmp_path):
    good = 'ใช้คำว่า "cat" 3 ครั้ง'
    texts, counts = said([pair(constraint=made())], lambda r: Answer(good, "stop"), tmp=tmp_path)
    assert texts == [good] and counts == {"translated": 1}


@pytest.mark.parametrize("answer", ['ใช้คำว่า "แมว" 3 ครั้ง', 'ใช้คำว่า "cat" สามครั้ง', ""])
def test_a_translation_that_lost_a_literal_or_a_number_is_not_used(tmp_path, answer):
    texts, counts = said([pair(constraint=made())], lambda r: Answer(answer, "stop"), tmp=tmp_path)
    assert texts == made().texts and counts == {"translation lost a literal or failed": 1}


def test_an_english_query_keeps_the_constraint_and_others_toss_a_coin(tmp_path):
    ask = lambda request: Answer('"cat" 3', "stop")  # noqa: E731
    english = [pair(n, made("th", 'ใช้คำว่า "cat" 3 ครั้ง'), "en") for n in range(50)]
    _, counts = said(english, ask, tmp=tmp_path)
    assert counts == {"left in its language": 50}
    korean = [pair(n, made(), "ko") for n in range(400)]
    _, counts = said(korean, ask, tmp=tmp_path)
    assert abs(counts["translated"] / 400 - 0.5) < 3 * sqrt(0.25 / 400)


def test_a_packed_constraint_is_translated_by_the_other_packs_words():
    (kind,) = [kind for kind in kinds("th") if kind.name == "keyword"]
    english = constraint_of(kind, {"keywords": ["แมว"], "language": "th"}, "en")
    (text,), counts = said([pair(constraint=english)])
    assert "“แมว”" in text and "คำ" in text and counts == {"translated by a pack": 1}


@pytest.mark.parametrize(
    ("original", "translation", "kept"),
    [
        ("ใช้ “แมว” และ “หมา”", "Use “แมว” and “หมา”", True),
        ("ใช้ “แมว” และ “หมา”", "Use “แมว”", False),
        ("Don't use it's 5 times", "ห้ามใช้ 5 ครั้ง", True),
        ("‘고양이’를 넣어", "Use ‘고양이’", True),
        ("จบด้วย 'จบ'", "End with 'end'", False),
    ],
)
def test_literals_are_what_stands_in_quotation_marks_and_numbers(original, translation, kept):
    assert keeps_literals(original, translation) == kept


def test_a_sample_that_says_what_another_said_is_dropped():
    told = placed(pair(), "ตอบเป็นข้อ", "th", Placement(), 0)
    counts = Counter()
    rows = list(checked([Sample(told, "- ก"), Sample(told, "- ก"), Sample(told, "- ข")], counts))
    assert [row.messages[-1]["content"] for row, _ in rows] == ["- ก", "- ข"]
    assert counts == {"kept": 2, "repeated": 1}
    assert rows[0][0].checks == [THAI.check] and rows[0][0].id != rows[1][0].id
