"""The Thai constrained set's own names and arguments as checks."""

import gzip
import json
import os
from pathlib import Path

import pytest

from endonym.core.errors import DataError
from endonym.rewards.constraints import obeys
from endonym.tasks.thai_constraints import READERS, checks_of

SHARED = Path(os.environ.get("ENDONYM_SHARED", Path(__file__).parents[2] / ".." / "shared"))
FILE = SHARED / "data" / "instruct" / "th" / "thai_ifeval_train.jsonl.gz"

CASES = [  # id, arguments, a reply that obeys, one that does not
    ("bullet_count_exact", {"count": 2}, "- แดง\n- ฟ้า", "- แดง"),
    ("sentence_count_exact", {"count": 1}, "ฉันไปตลาดเมื่อวานนี้ค่ะ", "ไปไหน? ไปตลาด!"),
    ("word_count_max", {"max_words": 2}, "แมวกิน", "แมวกินปลาทูทอด"),
    ("exact_character_count", {"character": "!", "count": 2}, "ดี! มาก!", "ดี!"),
    ("must_include_emoji_count", {"count": 2}, "ดี 😀 มาก 🎉", "ดี 😀"),
    ("must_not_include", {"phrases": ["แย่"]}, "ดีมาก", "งานนี้แย่"),
    ("keyword_x", {"keyword": "น้ำ", "exact_count": 2}, "น้ำกับน้ำ", "น้ำ"),
    (
        "thai_list_count_and_required_word",
        {"required_word": "ไข่"},
        "1. ไข่ต้ม\n2. ไข่เจียว",
        "1. ไข่ต้ม\n2. โจ๊ก",
    ),
    (
        "sentence_count_and_prefix",
        {"required_prefix": "ขอให้"},
        "ขอให้สุข. ขอให้เจริญ.",
        "ขอให้สุข. จงเจริญ.",
    ),
    ("sentence_count_and_prefix", {"prefix": "เพราะ"}, "เพราะน้ำดี. ดื่มเถอะ.", "น้ำดี. เพราะใส."),
    ("line_count_and_line_suffix", {"suffix": "ใจ"}, "ฝนปลอบใจ\nลมถึงใจ", "ฝนปลอบใจ\nลมพัด"),
    ("ends_with", {"suffix": "?"}, "ไปไหม?", "ไป"),
    (
        "numbered_list_thai_digits",
        {"items": 2, "numbering": ["๑", "๒"]},
        "๑ แดง\n๒ ฟ้า",
        "๒ แดง\n๑ ฟ้า",
    ),
    (
        "sentence_x",
        {"required": {"sentence_index": 2, "term": "หอม"}},
        "กาแฟดี. หอมมาก.",
        "หอมมาก. กาแฟดี.",
    ),
    ("paragraph_x", {"paragraph_keywords": {"2": "ราคา"}}, "ดี\n\nราคาถูก", "ราคาถูก\n\nดี"),
    (
        "table_x",
        {"columns": ["ก", "ข"], "rows": [["๑", "๒"]]},
        "|ก|ข|\n|-|-|\n|๑|๒|",
        "|ก|ข|\n|-|-|\n|๑|๓|",
    ),
    ("json_x", {"array_length": 1, "required_keys": ["ก"]}, '[{"ก": 1}]', "[]"),
    ("no_latin_characters", {"forbidden_script": "Latin"}, "ไทย", "ไทย A"),
    (
        "hashtag_x",
        {"hashtag_count": 2, "must_end_with_hashtag": True},
        "ทะเล #ฟ้า #คลื่น",
        "#ฟ้า #คลื่น ทะเล",
    ),
    ("dialogue", {"speakers": ["ก", "ข"], "turns": 2}, "ก: ดี\nข: ครับ", "ก: ดี\nค: ครับ"),
    (
        "x",
        {"title": "ฝน", "final_pattern": "คะแนน: X/10", "x_min": 1, "x_max": 10},
        "ฝนดี. คะแนน: 10/10",
        "ฝนดี. คะแนน: 11/10",
    ),
]


@pytest.mark.parametrize("name, kwargs, good, bad", CASES)
def test_arguments_are_read(name, kwargs, good, bad):
    checks, untold = checks_of(name, kwargs)
    assert untold == [] and all(obeys(good, check) for check in checks)
    assert not all(obeys(bad, check) for check in checks)


def test_what_no_program_can_tell_is_named():
    checks, untold = checks_of("x", {"tone": "สุภาพ", "max_sentences": 2})
    assert len(checks) == 1 and untold == ["tone"]
    with pytest.raises(DataError, match="nothing can be checked"):
        checks_of("x", {"tone": "สุภาพ"})
    with pytest.raises(DataError, match="nobody has read"):
        checks_of("x", {"number_of_cats": 3})


@pytest.mark.skipif(not FILE.is_file(), reason="no shared data (set ENDONYM_SHARED)")
def test_every_row_maps_and_most_of_its_replies_obey():
    """The replies are a model's and not checked by their makers: nine of ten obey as read here. A
    reader that misunderstands an argument shows as a lower number."""
    rows = [json.loads(line) for line in gzip.decompress(FILE.read_bytes()).splitlines()]
    read = [checks_of(row["constraint"]["id"], row["constraint"]["kwargs"]) for row in rows]
    assert len(rows) == 252 and sum(not untold for _, untold in read) == 228
    replies = [row["messages"][-1]["content"].replace("\\n", "\n") for row in rows]
    obeyed = sum(
        all(obeys(reply, check) for check in checks) for reply, (checks, _) in zip(replies, read)
    )
    assert obeyed == 222
    used = {key for row in rows for key in row["constraint"]["kwargs"]}
    assert set(READERS) <= used, "a reader of an argument that no row has"
