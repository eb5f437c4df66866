import pytest
from hypothesis import given
from hypothesis import strategies as st

from endonym.core.errors import DataError
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
