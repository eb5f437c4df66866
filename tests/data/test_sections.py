"""Laws cut into sections: numbers, borders of chunks, what is left out."""

from collections import Counter

import pytest

from endonym.core.errors import DataError
from endonym.data.files import raw_rows
from endonym.data.sections import (
    Section,
    law_kr,
    listed,
    read_sections,
    thai_law_acts,
    write_sections,
)
from tokenizer.samples import shared

ACT = "พระราชบัญญัติทดลอง พ.ศ. 2560"
SAID = {"language": "th", "source": "s", "licence": "PD"}


def read(reader, rows, **said):
    left_out = Counter()
    return list(reader(rows, left_out=left_out, **{**SAID, **said})), left_out


def chunk(number, *paragraphs, act="A"):
    return {"id": f"{act}#{number}", "title": ACT, "text": "\n\n".join(paragraphs)}


def test_a_chunk_is_cut_at_the_laws_name_with_a_section():
    rows = [
        chunk(
            0,
            f"{ACT} มาตรา 1 ข้อความหนึ่ง\nต่อ",
            f"{ACT} มาตรา ๑๒/๑ ตาม {ACT} มาตรา 1",
            f"{ACT} มาตรา 69 ทวิ สาม",
            f"{ACT} มาตรา70เบญจ ห้า",
            f"{ACT} มาตรา 3 ฉบับละสิบบาท",
        )
    ]
    found, left_out = read(thai_law_acts, rows)
    assert [(each.number, each.text) for each in found] == [
        ("1", "ข้อความหนึ่ง\nต่อ"),
        ("12/1", f"ตาม {ACT} มาตรา 1"),
        ("69 ทวิ", "สาม"),
        ("70 เบญจ", "ห้า"),
        ("3", "ฉบับละสิบบาท"),
    ]
    assert found[1] == Section("A/12/1", ACT, "12/1", "", found[1].text, "th", "s", "PD")
    assert not left_out


def test_a_section_that_runs_over_a_chunks_border_is_mended():
    rows = [
        chunk(0, f"{ACT} มาตรา 1 หนึ่ง", f"{ACT} มาตรา 2 สอง"),
        chunk(1, "(2) ต่อจากสอง", f"{ACT} มาตรา 3 สาม"),
        chunk(2, f"{ACT} มาตรา 3 ต่อจากสาม", f"{ACT} มาตรา 4 สี่"),
    ]
    found, left_out = read(thai_law_acts, rows)
    assert [each.text for each in found] == ["หนึ่ง", "สอง\n(2) ต่อจากสอง", "สาม\nต่อจากสาม", "สี่"]
    assert not left_out


def test_what_has_lost_its_beginning_is_counted_and_joined_to_nothing():
    rows = [
        chunk(0, f"{ACT} มาตรา 1 หนึ่ง"),
        chunk(2, "(2) ของมาตราที่หายไป", f"{ACT} มาตรา 9 เก้า"),
        chunk(3, f"{ACT} มาตรา ก ไม่มีเลข", "ต่อจากนั้น"),
        chunk(0, "(3) ของกฎหมายอื่น", act="B"),
    ]
    found, left_out = read(thai_law_acts, rows)
    assert [(each.number, each.text) for each in found] == [("1", "หนึ่ง"), ("9", "เก้า")]
    assert left_out == {"its beginning is not here": 2, "no number can be read": 1}


def test_an_item_of_a_schedule_is_named_after_it():
    rows = [chunk(0, f"{ACT} บัญชีอัตราอากร\nลักษณะ: 5. กู้ยืมเงิน", "ทุกจำนวนเงิน 2,000 บาท")]
    found, _ = read(thai_law_acts, rows)
    assert [each.number for each in found] == ["บัญชีอัตราอากร 5"]
    assert found[0].text == "ลักษณะ: 5. กู้ยืมเงิน\nทุกจำนวนเงิน 2,000 บาท"


KOREAN = """어린이 놀이 규칙

제1장 총칙

제1조 (목적)

이 규칙은 제3조에 따른 놀이를 정한다.

제2조의2 (정의(定義))

① "놀이"란 다음과 같다.

  1\\. 그네

제2장 보칙

제3조

제2조의 규정은 적용하지 아니한다.

제4조 (삭제)

부칙

제1조(시행일) 이 규칙은 공포한 날부터 시행한다.
"""


def test_a_korean_statute_is_cut_at_its_headings():
    rows = [{"id": "놀이/규칙", "text": KOREAN}, {"id": "x", "text": "이름\n\n글만 있다."}]
    found, left_out = read(law_kr, rows, language="ko")
    assert [(each.number, each.title, each.text) for each in found] == [
        ("1", "목적", "이 규칙은 제3조에 따른 놀이를 정한다."),
        ("2의2", "정의(定義)", '① "놀이"란 다음과 같다.\n  1. 그네'),
        ("3", "", "제2조의 규정은 적용하지 아니한다."),
    ]
    assert found[1].id == "놀이/규칙/2의2" and found[1].book == "어린이 놀이 규칙"
    assert left_out == {
        "supplementary provisions": 1, "without text": 1, "no section can be found": 1
    }  # fmt: skip


def test_rows_that_are_sections_keep_what_they_say():
    rows = [
        {
            "book": "Bylaws",
            "number": "Section 2",
            "text": " no parking ",
            "language": "en",
            "id": None,
        },
        {"book": "Bylaws", "text": " "},
        {"id": "own", "book": "B", "number": 3, "title": "T", "text": "x", "licence": "CC0-1.0"},
    ]
    found, left_out = read(listed, rows)
    assert found == [
        Section("Bylaws/2", "Bylaws", "2", "", "no parking", "en", "s", "PD"),
        Section("own", "B", "3", "T", "x", "th", "s", "CC0-1.0"),
    ]
    assert left_out == {"without text": 1}


def test_a_table_gives_back_what_was_written(tmp_path):
    made = [Section("a", "B", "1", "", "ก"), Section("b", "B", "", "t", "ข", "th", "s", "l")]
    assert write_sections(tmp_path / "sections.parquet", made) == 2
    assert read_sections(tmp_path / "sections.parquet") == made
    with pytest.raises(DataError, match="without rows"):
        write_sections(tmp_path / "none.parquet", [])


def real(name):
    file = shared() / name
    if not file.is_file():
        pytest.skip(f"{name} is not here")
    return [row for _, row in raw_rows(file)]


def test_the_real_thai_acts_become_sections():
    rows = real("text/th/thai_law_acts.jsonl.gz")
    found, left_out = read(thai_law_acts, rows)
    assert not left_out and len(found) > 4300
    assert len({each.id for each in found}) == len(found)
    # Nothing is lost: the sections hold what the chunks hold, but for names and numbers
    heads = sum(len(row["title"]) * row["text"].count(f"{row['title']} มาตรา") for row in rows)
    assert sum(len(each.text) for each in found) > 0.9 * (
        sum(len(row["text"]) for row in rows) - heads
    )
    numbers = {each.number for each in found if each.book == "ประมวลรัษฎากร"}
    assert {"40", "69 ทวิ", "3 จตุทศ", "91/2", "บัญชีอัตราอากรแสตมป์ 5"} <= numbers


def test_the_real_korean_statutes_become_sections():
    rows = real("text/ko/law_kr.jsonl.gz")
    found, left_out = read(law_kr, rows, language="ko")
    assert len(found) > 6500 and left_out["no section can be found"] <= 2
    assert len({each.id for each in found}) == len(found)
    assert sum("의" in each.number for each in found) > 200
