import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models

from endonym.core.errors import DataError
from endonym.tokenizer import convert
from tokenizer.samples import shared

CHECKPOINT = shared() / "checkpoints" / "stories260K" / "hf_layout"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def llama2c(text, ids, pieces, scores):
    """llama2.c's encode() without <s>: a space before the text, characters or bytes, then the
    best-scoring neighbours are joined, leftmost first, until none can be."""
    tokens = []
    for character in " " + text if text else "":
        known = ids.get(character)
        tokens += [known] if known is not None else [byte + 3 for byte in character.encode()]
    while True:
        best, place, joined = -1e10, -1, None
        for at in range(len(tokens) - 1):
            number = ids.get(pieces[tokens[at]] + pieces[tokens[at + 1]])
            if number is not None and scores[number] > best:
                best, place, joined = scores[number], at, number
        if place < 0:
            return tokens
        tokens[place : place + 2] = [joined]


def reference(rows):
    ids = {piece: number for number, piece, _ in rows}
    pieces = {number: piece for number, piece, _ in rows}
    scores = {number: score for number, _, score in rows}
    return lambda text: llama2c(text, ids, pieces, scores)


def toy():
    """Control, bytes, and pieces whose scores are NOT in the order of their making."""
    made = [" t", "he", " the", "th", "in", "ing", " in", "er", "the", "re", " there", "her"]
    order = [" there", "he", " t", "th", "her", "the", " the", "er", "re", "in", " in", "ing"]
    score = {piece: -float(order.index(piece)) for piece in made}
    single = [*" abcdefghinrstxyz", "ก"]
    pieces = ["<unk>", "\n<s>\n", "\n</s>\n", *BYTES, *made, *single]
    return [(n, piece, score.get(piece, -100.0 - n)) for n, piece in enumerate(pieces)]


@given(st.text("therinxg .กข\n", max_size=30) | st.text(st.characters(exclude_categories=["Cs"])))
def test_encodes_as_the_score_merge_does(text):
    text = text.replace("\u2581", "_")  # SentencePiece's space mark cannot be told from a space
    tokenizer = CONVERTED
    assert tokenizer.encode(text, literal=True) == REFERENCE(text)
    assert tokenizer.decode(tokenizer.encode(text, literal=True)) == text


CONVERTED = convert.from_pieces(toy())
REFERENCE = reference(toy())


def joined(text, ranks):
    """The joining itself: of all neighbours whose concatenation is a piece, the best, leftmost first."""
    parts = list(text)
    while True:
        found = [(ranks.get(a + b, 1e9), n) for n, (a, b) in enumerate(pairwise(parts))]
        best, place = min(found, default=(1e9, 0))
        if best == 1e9:
            return parts
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


PIECES = st.lists(st.text("ab", min_size=2, max_size=5), unique=True, max_size=12)


@given(PIECES, st.lists(st.text("ab", max_size=30), min_size=1))
def test_one_merge_a_piece_does_what_ranks_do(pieces, texts):
    """Any pieces in any order of rank, those that overlap themselves and dead ones included."""
    ranks = {"a": 100, "b": 101} | {piece: rank for rank, piece in enumerate(pieces)}
    pairs = convert.merges(ranks)
    assert len(pairs) == len(set(pairs)) <= len(pieces)
    vocabulary = {piece: number for number, piece in enumerate(ranks)}
    model = models.BPE(vocab=vocabulary, merges=pairs)
    for text in texts:
        assert [token.value for token in model.tokenize(text)] == joined(text, ranks)


def test_runs_of_equal_rank_grow_from_the_left():
    ranks = {"_" * length: 7 for length in range(1, 5)}  # as Llama's runs of spaces
    model = models.BPE(
        vocab={piece: n for n, piece in enumerate(ranks)}, merges=convert.merges(ranks)
    )
    for length in range(12):
        found = [token.value for token in model.tokenize("_" * length)]
        assert (
            found
            == joined("_" * length, ranks)
            == ["____"] * (length // 4) + ["_" * (length % 4)] * (length % 4 > 0)
        )


def test_a_piece_that_its_letters_do_not_lead_to_has_no_merge():
    ranks = {"a": 9, "b": 9, "c": 9, "ab": 1, "bc": 0, "abc": 2}
    assert convert.last_join("abc", ranks) == ("a", "bc")
    assert convert.merges(ranks) == [("b", "c"), ("a", "b"), ("a", "bc")]
    assert convert.merges({"a": 9, "b": 9, "c": 9, "d": 9, "bc": 0, "abcd": 2}) == [("b", "c")]


def test_named_tokens():
    assert (CONVERTED.bos_id, CONVERTED.eos_id) == (1, 2)
    assert CONVERTED.stop_ids == {2}
    assert CONVERTED.backend.encode("x").ids[0] == 1  # <s> when special tokens are asked for
    assert CONVERTED.encode("x")[0] != 1


def test_what_is_no_sentencepiece_is_refused():
    with pytest.raises(DataError, match="not those of a SentencePiece"):
        convert.from_pieces([(0, "<unk>", 0.0), (1, "a", 0.0)])
    with pytest.raises(DataError, match="gaps"):
        convert.from_pieces([(n + (n > 300), p, s) for n, p, s in toy()] + [(302, "q", 0.0)])
    with pytest.raises(DataError, match="the same"):
        convert.from_pieces([*toy(), (len(toy()), "in", 0.0)])


@pytest.fixture(scope="module")
def stories():
    if not CHECKPOINT.is_dir():
        pytest.skip(f"the real checkpoint is not here: {CHECKPOINT}")
    return convert.from_folder(CHECKPOINT)


def test_the_real_pieces_encode_real_text_as_llama2c(stories):
    rows = json.loads((CHECKPOINT / "vocab_scores.json").read_text())
    encode = reference([(row["id"], row["piece"], row["score"]) for row in rows])
    book = shared() / "text" / "en" / "tinyshakespeare.txt"
    if not book.is_file():
        pytest.skip(f"real text is not here: {book}")
    for paragraph in book.read_text()[:40_000].split("\n\n"):
        assert stories.encode(paragraph) == encode(paragraph)
        assert stories.decode(stories.encode(paragraph)) == paragraph


def test_the_golden_story_reads_and_encodes_back(stories):
    numpy = pytest.importorskip("numpy")
    golden = numpy.load(CHECKPOINT / "golden_greedy.npz")["tokens"].tolist()
    story = stories.decode(golden)
    assert story.startswith("Once upon a time, there was a little girl named Lily.")
    assert [stories.bos_id, *stories.encode(story)] == golden


def test_auto_tokenizer_agrees(stories, tmp_path):
    from transformers import AutoTokenizer

    stories.save(tmp_path)
    (tmp_path / "config.json").write_text((CHECKPOINT / "config.json").read_text())
    auto = AutoTokenizer.from_pretrained(tmp_path)
    for text in ["Once upon a time", "  two  spaces", "สวัสดี\n😀", ""]:
        assert auto.encode(text, add_special_tokens=False) == stories.encode(text)
        assert auto.encode(text)[0] == stories.bos_id
        assert auto.decode(stories.encode(text)) == text
