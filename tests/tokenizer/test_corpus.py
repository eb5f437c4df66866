import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from endonym.core.errors import DataError
from endonym.tokenizer import pretokenize
from endonym.tokenizer.corpus import Corpus, Joined, Mixture, equal_lengths, lines
from endonym.tokenizer.train import train
from tokenizer.samples import english, thai

SPLIT = pre_tokenizers.Split(Regex(pretokenize.words()), "isolated")


def pieces(texts):
    return [piece for text in texts for piece, _ in SPLIT.pre_tokenize_str(text)]


def test_texts_are_read_again_and_again_also_out_of_a_generator():
    corpus = Corpus(text for text in ["one", "two"])
    assert list(corpus) == list(corpus) == ["one", "two"]


def test_bytes_and_named_texts_are_texts():
    assert list(Corpus(["ไทย".encode(), ("file", "two")])) == ["ไทย", "two"]


def test_broken_utf8_is_told_with_its_place():
    with pytest.raises(DataError, match="not UTF-8") as error:
        list(Corpus([("a.txt", "ไทย".encode()), ("b.txt", b"abc\xff\xe0def")]))
    assert error.value.where == "b.txt, byte 3"
    assert error.value.got.startswith("ff e0 64")


def test_half_a_surrogate_pair_is_told_with_its_place():
    with pytest.raises(DataError, match="surrogate") as error:
        list(Corpus(["ab\ud800c"]))
    assert (error.value.where, error.value.got) == ("text 1, character 2", "U+D800")


@pytest.mark.parametrize("texts", [[], [""], [" \n", "\t"]])
def test_an_empty_corpus_is_refused(texts):
    with pytest.raises(DataError, match="no text to learn from"):
        list(Corpus(texts))
    with pytest.raises(DataError, match="no text to learn from"):
        train(texts, 300)


def test_another_language_than_declared_is_told_with_what_is_there():
    with pytest.raises(DataError, match="not in the language declared, 'th'") as error:
        list(Corpus(english(50), "th"))
    assert error.value.got == "Latn 100%"
    with pytest.raises(DataError, match="'en'") as error:
        list(Corpus(thai(50), "en"))
    assert error.value.got == "Thai 100%"
    assert len(list(Corpus(thai(50), "th"))) == 50
    with pytest.raises(DataError) as error:
        list(Corpus(["12 34"], "th"))
    assert error.value.got == "no letters"


def test_a_declared_language_may_come_late_and_be_a_small_part():
    assert len(list(Corpus(english(900) + thai(10), "th"))) == 910


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1), st.integers(1, 40))
def test_a_limit_is_bytes_and_cuts_no_character(texts, limit):
    texts = ["a", *texts]
    found = "".join(Corpus(texts, limit=limit)).encode()
    whole = "".join(texts).encode()
    assert whole.startswith(found) and len(found) <= limit
    assert len(found) > min(limit, len(whole)) - 4


def test_a_mixture_holds_its_ratio_from_the_beginning_and_repeats_nothing():
    texts = {"en": english(400), "th": thai(100)}
    mixture = Mixture(texts, {"en": 1, "th": 3})
    found = list(mixture)
    assert found == list(mixture)
    assert len(set(found)) == len(found)
    for end in range(40, len(found), 7):
        size = {"en": 0, "th": 0}
        for text in found[:end]:
            size["th" if "\u0e01" <= text[0] <= "\u0e4e" else "en"] += len(text.encode())
        # ahead by one text at most: a Thai line has up to 400 bytes
        assert abs(size["th"] - 3 * size["en"]) < 3 * 400


def test_a_mixture_ends_where_the_language_that_should_speak_has_nothing_left():
    assert list(Mixture({"a": ["1", "1", "1"], "b": ["2"]}, {"a": 1, "b": 1})) == ["1", "2", "1"]
    with pytest.raises(DataError, match="weights"):
        Mixture({"a": ["1"]}, {"a": 1, "b": 1})
    with pytest.raises(DataError, match="weights"):
        Mixture({"a": ["1"]}, {"a": 0})


def test_joined_texts_are_read_again():
    joined = Joined([["a"], ["b", "c"]])
    assert list(joined) == list(joined) == ["a", "b", "c"]


def test_equal_lengths_are_those_of_the_shortest_language():
    found = equal_lengths({"a": ["xxxx", "xxxx"], "b": ["yyy", "yyy"]}, 7)
    assert found == {"a": ["xxxx", "xx"], "b": ["yyy", "yyy"]}
    assert equal_lengths({"a": ["xxxx"], "b": ["yyy"]}, 2) == {"a": ["xx"], "b": ["yy"]}


@given(
    st.lists(
        st.sampled_from(["กี่", "น้ำ", "a", "b\u0301", " ", "  ", "1", ",", "(", "'t", "é", "漢"])
    )
)
def test_a_line_is_cut_where_pre_tokens_end_if_it_can_be(parts):
    text = "".join(parts)
    found = list(lines([text], longest=12))
    assert "".join(found) == text and all(len(line) <= 12 for line in found)
    marks = [line for line in found[1:] if line[0] in "\u0e35\u0e48\u0e49\u0301"]
    assert not marks
    # Within every stretch of 12 a word or a number ends: then nothing is lost.
    words = [part for part in parts if part.strip() and part not in ",("]
    for spaced in (" ".join(words), " , (".join(words)):
        assert pieces(lines([spaced], longest=12)) == pieces([spaced])


def test_line_ends_part_lines_and_stay():
    assert list(lines(["a\nb\r\n", "c"])) == ["a\n", "b\r\n", "c"]
