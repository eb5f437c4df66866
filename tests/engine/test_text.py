"""Text: stop strings and characters that begin in one token and end in another."""

import random

import pytest
import torch

from endonym.core.errors import DataError
from endonym.engine.generate import generate, stream_text
from endonym.engine.sampler import Sampling
from endonym.engine.text import Text
from endonym.model.config import ModelConfig
from endonym.model.hf import new

THAI = "สวัสดี END ครับ"


def bytes_of(text):
    return list(text.encode())


def decode(ids):
    """A token is a byte; 256 and above are control tokens, 255 stands for three letters."""
    pieces = [b"END" if each == 255 else bytes([each]) for each in ids if each < 256]
    return b"".join(pieces).decode(errors="replace")


def pushed(ids, stops=()):
    """(the pieces that may be shown, the Text)."""
    text, pieces, given = Text(decode, stops), [], 0
    for token in ids:
        text.push(token)
        pieces.append(text.text[given : text.ready])
        given = max(given, text.ready)
        if text.ended:
            return pieces, text
    text.finish()
    pieces.append(text.text[given:])
    return pieces, text


def test_characters_come_whole():
    pieces, text = pushed(bytes_of(THAI))
    assert "".join(pieces) == text.text == THAI
    assert pieces[:3] == ["", "", "ส"] and "\ufffd" not in "".join(pieces)


@pytest.mark.parametrize("stop", ["END", " END", "ดี E", "ND ", "ครับ", "ส"])
def test_a_stop_string_ends_it_wherever_its_tokens_are(stop):
    pieces, text = pushed(bytes_of(THAI), [stop])
    assert text.ended and text.text == THAI[: THAI.index(stop)] == "".join(pieces)


def test_nothing_of_a_stop_string_is_shown_and_what_is_none_comes_later():
    pieces, text = pushed(bytes_of("a<endless"), ["<end>"])
    assert pieces[:6] == ["a", "", "", "", "", "<endl"] and not text.ended
    pieces, text = pushed([*bytes_of("a<en"), *bytes_of("d>b")], ["<end>"])
    assert "".join(pieces) == "a" and text.ended


def test_a_stop_string_that_begins_within_a_token_cuts_that_token():
    assert pushed([*bytes_of("x"), 255, *bytes_of("y")], ["NDy"])[1].text == "xE"


def test_the_first_of_several_ends_it():
    assert pushed(bytes_of("abcdef"), ["de", "cd", "zz"])[1].text == "ab"


def test_half_a_character_at_the_end_is_told_as_such():
    assert pushed(bytes_of("ส")[:2])[1].text == "\ufffd"
    assert pushed([*bytes_of("ส")[:2], *bytes_of("a")])[1].text == "\ufffda"


def test_against_looking_at_the_whole_text():
    chance = random.Random(0)
    for _ in range(300):
        ids = [chance.choice([97, 98, 255, 256, 0xE0, 0xB8, 0xAA]) for _ in range(12)]
        stops = ["".join(chance.choices("abEND", k=chance.randint(1, 3))) for _ in range(2)]
        pieces, text = pushed(ids, stops)
        whole = decode(ids)
        places = [whole.index(stop) for stop in stops if stop in whole]
        assert text.text == "".join(pieces) == (whole[: min(places)] if places else whole)


@pytest.fixture(scope="module")
def model():
    made = new(
        ModelConfig(
            vocab_size=256, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        ),
        0,
    )  # fmt: skip
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() > 1:
                weight.mul_(15)
    return made


SAMPLING = Sampling(max_tokens=24, seed=1)
PROMPTS = [[1, 2, 3], [4], [5, 6]]


def letters(ids):
    return "".join(chr(97 + each % 26) for each in ids)


@pytest.mark.parametrize("batch", [1, 3])
def test_generate_stops_at_strings(model, batch):
    free = generate(model, PROMPTS, SAMPLING, decode=letters)
    assert [each.text for each in free] == [letters(each.tokens) for each in free]
    stop = free[0].text[7:10]
    at = free[0].text.index(stop)
    done = generate(model, PROMPTS, SAMPLING, decode=letters, stops=[stop], batch=batch)
    assert done[0].text == free[0].text[:at] and done[0].finish == "stop"
    assert done[0].tokens == free[0].tokens[: at + 3]
    assert len(done[0].logprobs) == len(done[0].raw_logprobs) == at + 3
    shown = "".join(stream_text(model, PROMPTS[0], SAMPLING, decode=letters, stops=[stop]))
    assert shown == done[0].text


def test_a_stop_token_is_no_text(model):
    free = generate(model, PROMPTS, SAMPLING)[1].tokens
    done = generate(model, PROMPTS[1:2], SAMPLING, {free[5]}, decode=letters)[0]
    cut = free.index(free[5])
    assert done.tokens == free[: cut + 1] and done.text == letters(free[:cut])


@pytest.mark.parametrize("stops, given", [("END", letters), ([""], letters), (["a"], None)])
def test_stops_that_cannot_be_looked_for(model, stops, given):
    with pytest.raises(DataError):
        generate(model, PROMPTS, SAMPLING, stops=stops, decode=given)
