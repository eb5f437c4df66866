"""Numbers of sections: one spelling, and those that a text names."""

import pytest

from endonym.lang.citations import cited, section_number, western


@pytest.mark.parametrize(
    "written, wanted",
    [
        ("12", "12"),
        ("มาตรา ๖๙ทวิ", "69 ทวิ"),
        ("ม. ๔๐", "40"),
        ("มาตรา 12 / 1", "12/1"),
        ("65 อัฏฐ /1", "65 อัฏฐ/1"),
        ("ข้อ 3", "3"),
        ("Section 7", "7"),
        ("SEC. 7/2", "7/2"),
        ("§ 12", "12"),
        ("제3조", "3"),
        ("제12조의2", "12의2"),
        ("12 의 2", "12의2"),
        ("12조", "12"),
        ("១២", "12"),
        ("บัญชีอัตราอากรแสตมป์  5", "บัญชีอัตราอากรแสตมป์ 5"),
        ("3 ฉบับ", "3 ฉบับ"),  # "copies", not the ordinal ฉ
        ("40 (8)", "40 (8)"),
        ("", ""),
    ],
)
def test_a_number_has_one_spelling(written, wanted):
    assert section_number(written) == wanted
    assert section_number(section_number(written)) == wanted


def test_a_text_names_sections_by_the_word_for_them():
    thai = "ตามมาตรา ๔๐ (๘) และมาตรา 69 ทวิ แห่งประมวลรัษฎากร และมาตรา 40 ปี 2567 จำนวน 3 ฉบับ"
    assert cited(thai) == ["40", "69 ทวิ"]
    assert cited("제3조 및 제12조의2, 제40호") == ["3", "12의2"]
    assert cited("Sections 7, Art. 8/1, part. 9; intersection 5") == ["7", "8/1"]
    assert cited("nothing 12") == []


def test_digits_are_mapped_one_for_one():
    assert western("ก๑๒३٤5") == "ก12345"
