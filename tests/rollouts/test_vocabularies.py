"""Two vocabularies side by side, and one text cut by both."""

import json
from itertools import pairwise

import pytest

from endonym.core.errors import RecipeError
from endonym.rollouts.boundaries import Boundaries, Span
from endonym.rollouts.vocabularies import differences, markers, same, shared, spellings
from endonym.tokenizer.convert import from_pieces
from endonym.tokenizer.folder import Backend, Tokenizer
from endonym.tokenizer.train import train
from eval.tiny import ENGLISH, THAI, tokenizer

TEXTS = [ENGLISH, THAI, "น้ำ the น้ำท่วม 2568 capital!\n", "emoji 🎈 and é"]


def other():
    """Of other texts: it has strings that tokenizer() has not."""
    return train(
        [THAI[20:] * 3, "their capitals were old cities on the hill of the people" * 3], 400
    )


def changed(words, change):
    state = json.loads(words.backend.to_str())
    change(state)
    return Tokenizer(Backend.from_str(json.dumps(state)), words.named, words.template)


@pytest.mark.parametrize("words", [tokenizer(), other()])
def test_the_bytes_of_tokens_are_the_text(words):
    table = spellings(words)
    for text in TEXTS:
        assert b"".join(table[n] for n in words.encode(text)) == text.encode()
    control = {words.eos_id, words.turn_end_id}
    assert not control & table.keys() and len(markers(words)) == words.vocab_size


def test_the_bytes_of_pieces_are_the_text():
    letters = sorted(set("thecountryhasalargepopulation"))
    texts = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{n:02X}>" for n in range(256)),
        "▁the",
        "th",
        "▁",
        *letters,
    ]
    pieces = [(n, text, -float(n)) for n, text in enumerate(dict.fromkeys(texts))]
    words = from_pieces(pieces)
    table = spellings(words)
    text = "the country é"
    written = b"".join(table[n] for n in words.encode(text))
    assert written.lstrip() == text.encode()


def test_names_of_one_tokenizer_with_other_control_tokens():
    words = tokenizer()
    size = len(words.backend.get_vocab())

    def add(state):
        state["added_tokens"].append(
            {"id": size, "content": "<think>", "special": True, "single_word": False,
             "lstrip": False, "rstrip": False, "normalized": False}
        )  # fmt: skip

    richer = changed(words, add)
    names = same(words, richer)
    assert len(names.student) == size and (names.student == names.teacher).all()
    back = same(richer, words).table(size + 1)
    assert back[size] == -1 and (back[:size] == range(size)).all()


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda s: s["model"]["merges"].append(s["model"]["merges"].pop(3)), "merge 3 is"),
        (lambda s: s.update(normalizer={"type": "NFC"}), "another normalizer"),
        (lambda s: s.update(pre_tokenizer=None), "another pre_tokenizer"),
    ],
)
def test_what_cuts_texts_otherwise_is_named(change, told):
    with pytest.raises(RecipeError, match=told):
        same(tokenizer(), changed(tokenizer(), change))


def test_other_strings_are_named():
    told = "; ".join(differences(tokenizer(), other()))
    assert "strings, only the student has" in told and "merge" in told


def test_shared_strings():
    one, two = tokenizer(), other()
    names = shared(one, two)
    ours, theirs = markers(one), markers(two)
    assert all(ours[a] == theirs[b] for a, b in zip(names.student, names.teacher))
    pairs = dict(zip(names.student.tolist(), names.teacher.tolist()))
    assert pairs[one.turn_end_id] == two.turn_end_id and pairs[one.eos_id] == two.eos_id
    assert 256 < len(pairs) < min(one.vocab_size, two.vocab_size)
    assert len(set(pairs.values())) == len(pairs)


@pytest.mark.parametrize("text", TEXTS)
def test_spans_cover_a_text_and_both_agree_on_each(text):
    one, two = tokenizer(), other()
    a, b = [*one.encode(text), one.turn_end_id], [*two.encode(text), two.turn_end_id]
    spans = Boundaries(one, two).spans(a, b)
    assert (spans[0].first, spans[0].begin) == (0, 0)
    assert (spans[-1].last, spans[-1].end) == (len(a), len(b))
    ours, theirs = spellings(one), spellings(two)
    for span, following in pairwise(spans):
        assert (span.last, span.end) == (following.first, following.begin)
        mine = b"".join(ours[n] for n in a[span.first : span.last])
        assert mine == b"".join(theirs[n] for n in b[span.begin : span.end])
        # no boundary of both lies inside a span
        places = []
        for ids, table in (
            (a[span.first : span.last], ours),
            (b[span.begin : span.end], theirs),
        ):
            lengths = [len(table[n]) for n in ids]
            places.append({sum(lengths[:n]) for n in range(1, len(ids))})
        assert not places[0] & places[1]


def test_spans_end_where_the_texts_differ():
    one, two = tokenizer(), other()
    cut = Boundaries(one, two)
    a, b = one.encode("the country has"), two.encode("the country rose")
    spans = cut.spans(a, b)
    agreed = b"".join(spellings(one)[n] for n in a[: spans[-1].last])
    assert b"the country".startswith(agreed.rstrip()) and len(agreed) >= 3
    assert cut.spans(one.encode("x"), two.encode("y")) == []
    # an answer without its end, and one that goes on
    assert cut.spans(a, [*two.encode("the country has"), two.turn_end_id])[-1].last == len(a)
    assert cut.spans([], b) == [] and Span(0, 1, 0, 1) in cut.spans(
        a[:1], two.encode(one.decode(a[:1]))
    )
