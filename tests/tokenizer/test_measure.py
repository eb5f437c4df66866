import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from endonym.core.errors import DataError
from endonym.tokenizer import convert, measure
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.train import train
from tokenizer.samples import english, thai
from tokenizer.test_convert import toy

LEARNT = train(thai(80) + english(80), 700)
BYTES = train(["x"], 259)  # bytes alone
LLAMA = convert.from_pieces(toy())
WORDS = Tokenizer(Backend(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>")), {})
WORDS.backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()


def test_by_hand():
    found = measure.measure(BYTES, ["ab", "ก é"], "")
    assert (found.texts, found.characters, found.bytes, found.tokens) == (2, 5, 8, 8)
    assert found.uncovered == 2  # ก and é are cut; a, b and the space are one byte each
    assert found.to_dict() == {
        "vocab_size": 259,
        "texts": 2,
        "characters": 5,
        "bytes": 8,
        "words": None,
        "tokens": 8,
        "uncovered": 2,
        "tokens_per_character": 1.6,
        "bytes_per_token": 1.0,
        "tokens_per_word": None,
        "uncovered_share": 0.4,
    }
    json.dumps(found.to_dict())


def test_words_are_those_of_the_language():
    found = measure.measure(BYTES, ["two words, really"], "en")
    assert (found.words, found.tokens_per_word) == (3, 17 / 3)


def test_byte_fallback_and_unknown():
    # "th" is a piece; ข is none and is written as three bytes; ก is a piece
    found = measure.measure(LLAMA, ["thขก"])
    assert found.tokens == 1 + 1 + 3 + 1  # with the space before the text
    assert found.uncovered == 1
    assert measure.measure(WORDS, ["a xyz a"]).uncovered == 3


def uncovered_by_offsets(tokenizer, text):
    """Characters that more than one token touches, from the offsets of tokens in bytes."""
    raw, start, ends = text.encode(), 0, set()
    for number in tokenizer.encode(text, literal=True):
        token = tokenizer.backend.id_to_token(number)
        start += len(token)  # byte-level: a letter a byte
        ends.add(start)
    assert start == len(raw)
    place, cut = 0, 0
    for character in text:
        after = place + len(character.encode())
        cut += any(place < end < after for end in ends)
        place = after
    return cut


@given(st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(thai(20)))
def test_uncovered_characters_are_those_that_tokens_divide(text):
    if text:
        for tokenizer in (BYTES, LEARNT):
            wanted = uncovered_by_offsets(tokenizer, text)
            assert measure.measure(tokenizer, [text]).uncovered == wanted


def test_control_strings_in_a_text_are_text():
    assert measure.measure(LEARNT, ["<|im_end|>"]).tokens > 1


def test_many_batches_and_long_texts_count_as_one_would(monkeypatch):
    texts = [*thai(60), "".join(english(50))]
    whole = measure.measure(LEARNT, texts)
    monkeypatch.setattr(measure, "BATCH", 300)
    assert measure.measure(LEARNT, texts) == whole
    monkeypatch.setattr(measure, "LONGEST", 400)  # lines end, so no token is cut
    assert measure.measure(LEARNT, texts) == whole
    pieces = list(measure._pieces("x" * 1000 + "\n" + "y"))
    assert "".join(pieces) == "x" * 1000 + "\n" + "y" and max(map(len, pieces)) <= 400


def test_nothing_to_measure():
    for texts in ([], ["", ""]):
        with pytest.raises(DataError, match="no text to measure"):
            measure.measure(LEARNT, texts)


def test_premium_by_hand():
    found = measure.premium(BYTES, {"en": ["ab", "cd"], "th": ["กก", "ข"]})
    assert found["en"] == measure.Premium(4, 1.0, 1.0)
    assert found["th"] == measure.Premium(9, 2.25, 4 / 9)
    assert measure.premium(BYTES, {"en": ["ab"], "th": ["ก"]}, base="th")["en"].cost == 2 / 3
    assert found["th"].to_dict() == {"tokens": 9, "cost": 2.25, "context": 4 / 9}


def test_sides_that_do_not_match():
    with pytest.raises(DataError, match="no 'en' to compare"):
        measure.premium(BYTES, {"th": ["ก"]})
    with pytest.raises(DataError, match="do not match"):
        measure.premium(BYTES, {"en": ["a", "b"], "th": ["ก"]})
    with pytest.raises(DataError, match="do not match"):
        measure.premium(BYTES, {"en": [], "th": []})


def test_a_vocabulary_that_knows_a_script_costs_it_less():
    draw = random.Random(1)
    sample = draw.sample(thai(200, seed=9), 40)
    small, large = measure.measure(BYTES, sample), measure.measure(LEARNT, sample)
    assert large.tokens_per_character < small.tokens_per_character / 5
    assert large.uncovered_share < 0.1 < 0.8 < small.uncovered_share
