import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from endonym.core.errors import DataError
from endonym.tokenizer import pretokenize
from tokenizer.samples import THAI_SCRIPT

GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = GPT4.replace(r"\p{N}{1,3}", r"\p{N}")
THAI_MARKS = pretokenize.marks(THAI_SCRIPT)


def cut(pattern, text):
    return [
        piece
        for piece, _ in pre_tokenizers.Split(Regex(pattern), "isolated").pre_tokenize_str(text)
    ]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("ที่นี่ มีน้ำ", ["ที่นี่", " มีน้ำ"]),  # vowel and tone marks stay with their letters
        ("ปี 2567", ["ปี", " ", "2", "5", "6", "7"]),
        ("ปี๒๕", ["ปี", "๒", "๕"]),  # Thai digits too
        ("if x:\n    y = 1\n", ["if", " x", ":\n", "   ", " y", " =", " ", "1", "\n"]),
        ("don't 'เขา'", ["don", "'t", " '", "เขา", "'"]),
        ("'ดี", ["'ดี"]),  # no English suffix before another letter
        ("a\r\n\r\n  b", ["a", "\r\n\r\n", " ", " b"]),
        ("한국어 대한", ["한국어", " 대한"]),
        ("\u0e34x", ["\u0e34x"]),  # a mark without a letter before it
    ],
)
def test_our_split(text, pieces):
    assert cut(pretokenize.words(), text) == pieces


def test_long_runs_are_cut_between_letters_never_before_a_mark():
    pieces = cut(pretokenize.words(4), "กี่ก่กี้ก็ก์ก")
    assert pieces == ["กี่ก่กี้ก็", "ก์ก"]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_our_split_loses_nothing(text):
    assert "".join(cut(pretokenize.words(), text)) == text


def test_marks_of_a_script():
    assert (
        "\u0e31"
        + "".join(map(chr, range(0x0E34, 0x0E3B)))
        + "".join(map(chr, range(0x0E47, 0x0E4F)))
        == THAI_MARKS
    )


@pytest.mark.parametrize("pattern", [pretokenize.GPT2, GPT4, QWEN])
def test_patched_patterns_keep_thai_whole(pattern):
    text = " น้ำที่ดี"
    assert cut(pattern, text) != [text]
    assert cut(pretokenize.with_marks(pattern, THAI_MARKS), text) == [text]


@pytest.mark.parametrize("pattern", [pretokenize.GPT2, GPT4, QWEN])
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters=THAI_MARKS)))
def test_patched_patterns_leave_other_text_as_it_was(pattern, text):
    assert cut(pretokenize.with_marks(pattern, THAI_MARKS), text) == cut(pattern, text)


def test_other_scripts_marks_are_still_cut():
    devanagari = "नमस्ते"
    patched = pretokenize.with_marks(GPT4, THAI_MARKS)
    assert cut(patched, devanagari) == cut(GPT4, devanagari) != [devanagari]


def test_a_pattern_that_joins_marks_already_is_left_alone():
    assert pretokenize.with_marks(pretokenize.words(), THAI_MARKS) == pretokenize.words()
    with pytest.raises(DataError, match="unknown kind"):
        pretokenize.with_marks(r"\w+|\W+", THAI_MARKS)


def test_the_built_in_pattern_of_byte_level_becomes_an_explicit_split():
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    joined = pretokenize.join_marks(byte_level, THAI_MARKS)
    assert [part["type"] for part in joined["pretokenizers"]] == ["Split", "ByteLevel"]
    assert joined["pretokenizers"][1]["use_regex"] is False
    assert pretokenize.join_marks(None, THAI_MARKS) is None
    with pytest.raises(DataError, match="space before the text"):
        pretokenize.join_marks(byte_level | {"add_prefix_space": True}, THAI_MARKS)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_our_name_for_the_gpt2_pattern_is_the_backends(text):
    built_in = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    explicit = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pretokenize.GPT2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    assert built_in.pre_tokenize_str(text) == explicit.pre_tokenize_str(text)
