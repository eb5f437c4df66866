import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endonym.core.errors import DataError
from endonym.tokenizer.corpus import LONGEST_LINE, equal_lengths
from endonym.tokenizer.train import BORDER, bordered, train
from tokenizer.samples import THAI, by_dictionary, english, thai


@pytest.fixture(scope="module")
def made():
    return train(thai(300) + english(300), 900, by_dictionary)


@given(
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.text("กขคงน้ำที่เแโ ๑๒\n", max_size=40)
    | st.text("한국어대한민국 가각", max_size=20)
    | st.text("👩‍🚀🇹🇭❤️👍🏽", max_size=10)
)
def test_every_text_comes_back_exactly(made, text):
    assert made.decode(made.encode(text, literal=True)) == text


def test_every_byte_has_a_token(made):
    # byte-level: any bytes can be written, also such as are no UTF-8; 256 single-byte tokens exist
    from endonym.tokenizer.units import byte_letters

    ids = [made.special(letter) for letter in byte_letters()[0].values()]
    assert len(set(ids)) == 256


def test_digits_stand_alone(made):
    assert len(made.encode("1234")) == 4
    assert len(made.encode("๑๒")) == len(made.encode("๑")) + len(made.encode("๒"))


def test_training_twice_gives_the_same_tokenizer(made):
    assert train(thai(300) + english(300), 900, by_dictionary).identity == made.identity


def test_merges_end_at_words(made):
    # with the dictionary every token of Thai letters lies within a word; without it some do not
    def crossing(tokenizer):
        vocabulary = tokenizer.backend.get_vocab()
        texts = [tokenizer.decode([number]).strip() for number in vocabulary.values()]
        whole = [
            t for t in texts if t and "\ufffd" not in t and all("\u0e00" < c < "\u0e80" for c in t)
        ]
        return [t for t in whole if not any(t in word for word in THAI)]

    assert crossing(made) == []
    assert crossing(train(thai(300), 900)) != []


def test_borders_stand_between_letters_only():
    lines = list(bordered(["ไทยมี 12 คน\nx"], by_dictionary))
    assert lines == [f"ไทย{BORDER}มี 12 คน\n", "x"]


def test_a_segmenter_that_drops_spaces_is_refused():
    with pytest.raises(DataError, match="a segmenter changed the text"):
        train(thai(3), 400, lambda line: line.split())


def test_too_small_a_vocabulary_and_too_little_text():
    with pytest.raises(DataError, match="too small"):
        train(thai(3), 100)
    assert train(["ab ab"], 400).vocab_size < 270  # what there is, no more


def test_no_giant_line_is_handed_on():
    line = "ประเทศไทยมีน้ำ" * 4000 + "x" * 40_000
    found = list(bordered([line], None))
    assert "".join(found) == line and max(map(len, found)) <= LONGEST_LINE
    spaced = "".join(english(400)).replace("\n", " ")
    assert len(spaced) > LONGEST_LINE
    sentences = re.split(r"(?<=\.)(?= )", spaced)
    assert train([spaced], 500).identity == train(sentences, 500).identity


def characters_a_token(tokenizer, texts):
    return sum(map(len, texts)) / sum(map(len, tokenizer.encode_batch(texts)))


def test_parity_helps_the_language_that_pays_more():
    # ten times as much English as Thai, and 341 merges: plain BPE spends them on English
    texts = {"en": english(1000), "th": thai(60)}
    plain = train(texts, 600)
    fair = train(texts, 600, parity=equal_lengths(texts))
    assert plain.vocab_size == fair.vocab_size == 600
    held_out = {"en": english(80, 7), "th": thai(80, 7)}
    before, after = (
        {name: characters_a_token(made, each) for name, each in held_out.items()}
        for made in (plain, fair)
    )
    assert before["th"] < 0.7 * before["en"]
    assert after["th"] > 1.15 * before["th"]
    assert min(after.values()) > 0.9 * max(after.values())
    assert fair.decode(fair.encode("น้ำ ab ๑ é")) == "น้ำ ab ๑ é"
    # and what comes first in the vocabulary is the same
    ids = [made.special("<|im_end|>") for made in (plain, fair)]
    assert ids == [2, 2] and plain.special("!") == fair.special("!")


def test_parity_goes_by_what_the_texts_say_where_they_are_parallel():
    # three English sentences count as much as one Thai sentence: English is then the one that pays
    texts = {"en": english(1000), "th": thai(100)}
    parallel = {"en": english(150, 1), "th": thai(50, 1)}
    made = train(texts, 600, parity=parallel)
    tokens = {name: sum(map(len, made.encode_batch(each))) for name, each in parallel.items()}
    assert tokens["en"] == pytest.approx(tokens["th"], rel=0.02)


@pytest.mark.parametrize("texts", [["one", "two"], {"en": ["one"]}, {"en": ["one"], "ko": ["two"]}])
def test_parity_without_the_texts_of_each_language_is_refused(texts):
    with pytest.raises(DataError, match="texts of each language"):
        train(texts, 300, parity={"en": ["one"], "th": ["two"]})


def test_texts_by_language_are_learnt_from_together(made):
    texts = {"th": thai(300), "en": english(300)}
    assert train(texts, 900, by_dictionary).identity == made.identity


def test_reserved_tokens_come_after_the_control_tokens_and_count():
    made = train(thai(50), 400, reserved=["<|image|>", "<|audio|>"])
    assert made.vocab_size == 400
    assert [made.special(text) for text in ("<|im_end|>", "<|image|>", "<|audio|>")] == [2, 3, 4]
    assert made.encode("x<|image|>")[-1] == 3
    assert 3 not in made.encode("x<|image|>", literal=True)
    for wrong in (["<|im_end|>"], ["<a>", "<a>"], [""]):
        with pytest.raises(DataError, match="reserved"):
            train(thai(5), 400, reserved=wrong)


def test_indentation_is_kept_and_one_token():
    code = "def f(x):\n        return x\n\n\tpass\n"
    made = train([code * 30], 400)
    assert made.decode(made.encode(code)) == code
    assert len(made.encode("        return")) == 2  # seven spaces, " return"
