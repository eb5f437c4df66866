import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from endonym.core.errors import DataError
from endonym.tokenizer import chat, convert, corpus, growth, keep, letters, pretokenize
from endonym.tokenizer.extend import bytes_per_token, extend, read_pieces
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.train import train
from endonym.tokenizer.units import Script, Units
from tokenizer.samples import THAI, THAI_SCRIPT, by_dictionary, english, shared, thai

LEARNT, UNSEEN = thai(800), thai(100, seed=1)
OLD_SIZE, GROWTH = 600, 230
ANY = st.text(st.characters(exclude_categories=["Cs"]))
NOT_THAI = st.text(
    st.characters(
        exclude_categories=["Cs"], exclude_characters="".join(map(chr, range(0xE00, 0xE80)))
    )
)
NEIGHBOURS = st.text("ກຂຄງາ丁且世ກ់កខ \n1aก"[:-1], max_size=20)  # Lao, Khmer, CJK: bytes alike
MIXED = st.text("กขคงน้ำที่เแโ ๑๒12abc\n한국어👩‍🚀ກຂ丁", max_size=40)


def sentencepiece_like():
    """The toy converter's vocabulary: English characters and merges with byte fallback."""
    merges = ["th", "the", "▁the", "in", "an", "▁an", "and", "▁and", "er", "is", "▁is", "ch"]
    single = [*"▁abcdefghijklmnopqrstuvwxyz,.'0123456789"]
    control = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = [*control, *merges, *single]
    return convert.from_pieces([(n, piece, -float(n)) for n, piece in enumerate(pieces)])


@pytest.fixture(scope="module", params=["byte-level", "byte-level, GPT-2 split", "byte fallback"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def old(kind):
    if kind == "byte fallback":
        return sentencepiece_like()
    made = train(english(400), OLD_SIZE)
    if kind == "byte-level":
        return made
    state = json.loads(made.backend.to_str())
    state["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return Tokenizer(Backend.from_str(json.dumps(state)), made.named, made.template)


@pytest.fixture(scope="module")
def grown(old):
    return extend(old, LEARNT, old.vocab_size + GROWTH, script=THAI_SCRIPT, segment=by_dictionary)


def test_the_size_asked_for_is_reached(old, grown):
    assert grown.tokenizer.vocab_size == old.vocab_size + GROWTH
    assert grown.figures["added"] == grown.figures["wanted"] == GROWTH


def test_every_old_id_keeps_its_string(old, grown):
    names = {number: token for token, number in grown.tokenizer.backend.get_vocab().items()}
    assert len(names) == grown.tokenizer.vocab_size  # no gaps, no doubles
    assert all(names[number] == token for token, number in old.backend.get_vocab().items())
    assert grown.tokenizer.stop_ids == old.stop_ids


@given(text=NOT_THAI | NEIGHBOURS)
def test_text_without_the_script_keeps_its_ids(old, grown, text):
    assert grown.tokenizer.encode(text) == old.encode(text)
    assert grown.tokenizer.encode(text, literal=True) == old.encode(text, literal=True)


def test_old_language_keeps_its_ids(old, grown):
    for line in english(200, seed=3):
        assert grown.tokenizer.encode(line) == old.encode(line)


def test_the_new_language_needs_far_fewer_tokens(old, grown):
    before, after = bytes_per_token(old, UNSEEN), bytes_per_token(grown.tokenizer, UNSEEN)
    assert before < 1.2
    assert after > 5 * before


@given(text=ANY | MIXED)
def test_every_text_comes_back_as_before(old, grown, text):
    ids = grown.tokenizer.encode(text, literal=True)
    assert grown.tokenizer.decode(ids) == old.decode(old.encode(text, literal=True))
    if "\u2581" not in text:
        assert grown.tokenizer.decode(ids) == text


@given(raw=st.binary(max_size=40) | MIXED.map(lambda text: text.encode()[1:-1]))
def test_broken_utf8_comes_back_byte_for_byte(kind, grown, raw):
    units = Units(byte_fallback=False)
    if kind == "byte fallback":  # its input is text; broken bytes reach it as byte tokens only
        return
    letters = "".join(units.spell(chr(byte)) if byte < 128 else _letter(byte) for byte in raw)
    tokens = grown.tokenizer.backend.model.tokenize(letters)
    assert b"".join(units.raw(token.value) for token in tokens) == raw


def _letter(byte):
    from endonym.tokenizer.units import byte_letters

    return byte_letters()[0][byte]


def test_merges_are_in_a_valid_order(kind, grown):
    model = json.loads(grown.tokenizer.backend.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    assert len(set(merges)) == len(merges)
    made = set()
    for left, right in merges:
        assert (len(left) == 1 or left in made or kind == "byte fallback") and left in model[
            "vocab"
        ]
        assert (len(right) == 1 or right in made or kind == "byte fallback") and right in model[
            "vocab"
        ]
        made.add(left + right)
        assert left + right in model["vocab"]


def test_new_tokens_are_reached_and_their_pieces_are_old(kind, old, grown):
    backend, units = grown.tokenizer.backend, Units(kind == "byte fallback")
    names = {number: token for token, number in backend.get_vocab().items()}
    assert sorted(grown.pieces) == list(range(old.vocab_size, grown.tokenizer.vocab_size))
    for new, pieces in grown.pieces.items():
        assert all(0 <= number < old.vocab_size for number in pieces) and len(pieces) > 1
        spelt = b"".join(units.raw(names[number]) for number in pieces)
        assert spelt == units.raw(names[new])
    used = {number for line in LEARNT for number in grown.tokenizer.encode(line)}
    # a merge's halfway results need not survive; most tokens are used as they are
    assert len(used & set(grown.pieces)) > 0.5 * GROWTH


def test_merges_end_at_the_words_of_the_segmenter(old, grown):
    def crossing(tokenizer):
        texts = [tokenizer.decode([n]).strip() for n in range(old.vocab_size, tokenizer.vocab_size)]
        whole = [t for t in texts if t and all("\u0e00" < c < "\u0e80" for c in t)]
        return [t for t in whole if not any(t in word for word in THAI)]

    assert crossing(grown.tokenizer) == []
    size = grown.tokenizer.vocab_size
    assert crossing(extend(old, LEARNT, size, script=THAI_SCRIPT).tokenizer) != []


def test_auto_tokenizer_loads_it_with_the_same_ids(kind, grown, tmp_path):
    from transformers import AutoTokenizer

    grown.save(tmp_path)
    name = "llama" if kind == "byte fallback" else "qwen3"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name}))
    auto = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*UNSEEN[:40], *english(20), "ที่\n\n  ไทย 👍 한국 ກ", "<|im_end|>"]:
        ids = grown.tokenizer.encode(text)
        assert auto.encode(text, add_special_tokens=False) == ids
        assert auto.decode(ids, skip_special_tokens=True) == grown.tokenizer.decode(ids)
    assert len(auto) == grown.tokenizer.vocab_size
    assert read_pieces(tmp_path) == (grown.old_vocab_size, grown.pieces)


def test_growing_by_nothing_is_the_identity(old):
    same = extend(old, LEARNT, old.vocab_size, script=THAI_SCRIPT)
    assert same.tokenizer.identity == old.identity
    assert same.pieces == {}


def test_too_little_text_is_said(old):
    few = extend(old, ["น้ำท่วม น้ำท่วม\n"], old.vocab_size + 300, script=THAI_SCRIPT)
    assert 0 < few.figures["added"] < few.figures["wanted"] == 300
    assert few.tokenizer.vocab_size == old.vocab_size + few.figures["added"]


def test_control_tokens_come_last_and_bring_the_template():
    old = sentencepiece_like()
    size = old.vocab_size + 100
    grown = extend(old, LEARNT, size, script=THAI_SCRIPT, specials=chat.SPECIALS)
    assert grown.tokenizer.vocab_size == size
    assert [grown.tokenizer.special(text) for text in chat.SPECIALS] == [
        size - 3,
        size - 2,
        size - 1,
    ]
    assert grown.pieces[size - 1] == old.encode("<|im_end|>", literal=True)
    assert grown.tokenizer.eos_id == old.eos_id  # the base's own end of documents stays
    talk = [{"role": "user", "content": "น้ำ"}, {"role": "assistant", "content": "ดี"}]
    ids, supervised = grown.tokenizer.encode_chat(talk)
    assert [n for n, s in zip(ids, supervised) if s][-1] == size - 1
    with pytest.raises(DataError, match="smaller than the old one"):
        extend(old, LEARNT, old.vocab_size + 2, specials=chat.SPECIALS)


def test_growing_twice_keeps_the_first_growth(old, grown):
    korean = ["대한민국 한국어 교육 대한민국 한국어 교육\n"] * 5
    again = extend(
        grown.tokenizer, korean, grown.tokenizer.vocab_size + 20, script=[(0xAC00, 0xD7A3)]
    )
    for line in [*UNSEEN[:40], *english(40)]:
        assert again.tokenizer.encode(line) == grown.tokenizer.encode(line)
    assert bytes_per_token(again.tokenizer, korean) > bytes_per_token(grown.tokenizer, korean)


def test_without_a_script_any_merge_may_be_learnt():
    old = train(english(5), 300)
    grown = extend(old, english(300), 400)
    assert grown.figures["added"] == 100
    assert bytes_per_token(grown.tokenizer, english(50, 4)) > bytes_per_token(old, english(50, 4))


def test_unspaced_text_without_a_segmenter_stays_bounded():
    old = train(english(50), 300)
    grown = extend(
        old, ["".join(thai(60)).replace(" ", "").replace("\n", "")] * 2, 400, script=THAI_SCRIPT
    )
    assert grown.figures["added"] == 100


@pytest.mark.parametrize(
    ("text", "binds"),
    [
        (b"\xe0\xb8\x81", True),  # ก
        (b"\xe0\xb8", True),  # only Thai begins so
        (b"\xe0\xb9", True),
        (b"\xe0\xba", False),  # Lao
        (b"\xe0", False),  # half of South and South-East Asia
        (b"\xb8\x81", False),  # the end of a character, of any script
        (b"\x81\xe0\xb8", True),
        (b"abc", False),
        (b"\xed\xa0\x80", False),  # a surrogate: no UTF-8
    ],
)
def test_which_bytes_only_thai_has(text, binds):
    assert Script(THAI_SCRIPT).binds(text) is binds


def test_a_beginning_shared_with_another_script_is_not_merged():
    # U+1080-109F is Burmese, U+10A0-10BF Georgian: both begin with E1 82, so characters there stay bytes
    burmese = [(0x1000, 0x109F)]
    assert not Script(burmese).binds(b"\xe1\x82")
    old = train(english(50), 300)
    grown = extend(old, ["\u1082\u1082 \u1019\u1019"] * 3, 310, script=burmese)
    assert grown.figures["characters_skipped"] == 1
    assert grown.tokenizer.encode("\u10a0\u10a1") == old.encode("\u10a0\u10a1")


def test_vocabularies_of_other_kinds_are_refused():
    unigram = {"model": {"type": "Unigram", "vocab": []}}
    with pytest.raises(DataError, match="only a BPE"):
        Units.of(unigram)
    with pytest.raises(DataError, match="cannot write every byte"):
        Units.of({"model": {"type": "BPE", "vocab": {"a": 0}}})


def with_model(old, **settings):
    state = json.loads(old.backend.to_str())
    state["model"] |= settings
    return Tokenizer(Backend.from_str(json.dumps(state)), old.named, old.template)


def test_a_unigram_base_is_refused_with_a_reason():
    from tokenizers import models

    pieces = [("<unk>", 0.0), ("a", -1.0), ("ab", -2.0)]
    unigram = Tokenizer(Backend(models.Unigram(pieces, unk_id=0)), {})
    with pytest.raises(DataError, match="no merges but a probability for each piece"):
        extend(unigram, LEARNT, 100, script=THAI_SCRIPT)


def test_a_broken_base_is_refused():
    model = json.loads(train(english(50), 300).backend.to_str())["model"]
    never = {"vocab": model["vocab"] | {"yz": 300, "xyz": 301}}
    never["merges"] = [*model["merges"], ["x", "yz"]]  # nothing makes yz
    with pytest.raises(DataError, match="can never be made"):
        extend(with_model(train(english(50), 300), **never), LEARNT, 400, script=THAI_SCRIPT)
    suffixed = with_model(train(english(50), 300), end_of_word_suffix="</w>")
    with pytest.raises(DataError, match="places of its tokens in words"):
        extend(suffixed, LEARNT, 400, script=THAI_SCRIPT)


@pytest.mark.parametrize("texts", [[], [""], [" \n", "\t"]])
def test_an_empty_corpus_is_said(texts):
    with pytest.raises(DataError, match="no text to learn from"):
        extend(sentencepiece_like(), texts, 700, script=THAI_SCRIPT)


def test_a_corpus_without_the_script_is_said():
    with pytest.raises(DataError, match="nothing of the script") as told:
        extend(sentencepiece_like(), ["한국어 and English"], 700, script=THAI_SCRIPT)
    assert "U+0E00 to U+0E7F" in told.value.wanted
    assert "Hang" in told.value.got and "Latn" in told.value.got


def test_a_size_below_the_old_one_is_said():
    old = sentencepiece_like()
    with pytest.raises(DataError, match="smaller than the old one"):
        extend(old, LEARNT, old.vocab_size - 1, script=THAI_SCRIPT)


def test_checked_texts_are_counted_by_label(old, grown):
    again = extend(
        old,
        LEARNT,
        old.vocab_size + GROWTH,
        script=THAI_SCRIPT,
        segment=by_dictionary,
        check={"English": english(30, 7), "Thai": ["no Thai", *UNSEEN[:9]], "none": []},
    )
    assert again.tokenizer.identity == grown.tokenizer.identity
    found = again.figures["check"]
    assert found["English"] | {"first": None} == found["English"]
    assert (found["English"]["texts"], found["English"]["changed"]) == (30, 0)
    assert found["English"]["bytes_per_token_before"] == found["English"]["bytes_per_token_after"]
    assert (found["Thai"]["texts"], found["Thai"]["changed"]) == (10, 9)
    assert found["Thai"]["first"] == UNSEEN[0][:80]
    assert found["none"]["texts"] == found["none"]["changed"] == 0
    assert (
        extend(old, LEARNT, old.vocab_size, check={"a": ["b"]}).figures["check"]["a"]["texts"] == 1
    )


def test_a_latin_language_may_change_old_text_and_it_is_counted():
    old = train(english(5), 300)
    grown = extend(old, english(300), 400, check={"English": english(20, 4)})
    assert grown.figures["check"]["English"]["changed"] > 0


def test_digits_stay_alone_where_they_stand_alone():
    old = sentencepiece_like()
    grown = extend(old, ["in 1999 and 1999 is the 1999th 12, a1999\n"] * 9, old.vocab_size + 60)
    assert grown.figures["added"] > 0
    names = {number: token for token, number in grown.tokenizer.backend.get_vocab().items()}
    assert not any(letter.isdigit() for number in grown.pieces for letter in names[number])
    assert grown.tokenizer.encode("1999") == old.encode("1999")


def test_native_digits_stand_alone_too():
    texts = ["พ.ศ. ๒๕๖๗ และ ๒๕๖๗ ในปี ๒๕๖๗\n"] * 9
    grown = extend(
        sentencepiece_like(), texts, sentencepiece_like().vocab_size + 60, script=THAI_SCRIPT
    )
    names = {number: token for token, number in grown.tokenizer.backend.get_vocab().items()}
    learnt = [names[number] for number in grown.pieces]
    assert "๒" in learnt and any("ปี" in token for token in learnt)
    assert not [token for token in learnt if len(token) > 1 and any(map(str.isdigit, token))]


def test_whole_words_are_looked_up_first_where_the_base_does_so():
    """ignore_merges (Llama 3): the same tokens are learnt, old text keeps its ids."""
    old = with_model(train(english(200), OLD_SIZE), ignore_merges=True)
    plain = with_model(old, ignore_merges=False)
    size = old.vocab_size + GROWTH
    grown, other = (
        extend(each, LEARNT, size, script=THAI_SCRIPT, segment=by_dictionary)
        for each in (old, plain)
    )
    assert json.loads(grown.tokenizer.backend.to_str())["model"]["ignore_merges"] is True
    assert grown.tokenizer.backend.get_vocab() == other.tokenizer.backend.get_vocab()
    for line in english(50, 3):
        assert grown.tokenizer.encode(line) == old.encode(line)
    tokens = {n: token for token, n in grown.tokenizer.backend.get_vocab().items()}
    for number in grown.pieces:  # each new token is met as a whole word
        assert [part.id for part in grown.tokenizer.backend.model.tokenize(tokens[number])] == [
            number
        ]
    for line in UNSEEN:
        assert len(grown.tokenizer.encode(line)) <= len(other.tokenizer.encode(line))


def test_characters_are_counted_as_the_base_reads_them():
    import unicodedata

    state = json.loads(train(english(50), 300).backend.to_str()) | {"normalizer": {"type": "NFC"}}
    old = Tokenizer(Backend.from_str(json.dumps(state)), {})
    hangul = [(0x1100, 0x11FF), (0xAC00, 0xD7A3)]
    composed = ["대한민국 한국어 교육 대한민국\n"] * 5
    in_jamo = [unicodedata.normalize("NFD", text) for text in composed]
    a, b = (extend(old, texts, 330, script=hangul).tokenizer for texts in (composed, in_jamo))
    assert a.identity == b.identity


def test_no_giant_line_reaches_the_old_tokenizer(monkeypatch):
    lengths, batches = [], keep.batches
    monkeypatch.setattr(
        keep, "batches", lambda lines: batches(lengths.append(len(x)) or x for x in lines)
    )
    line = "".join(thai(300)).replace("\n", " ")
    grown = extend(sentencepiece_like(), [line], 400, script=THAI_SCRIPT)
    assert len(line) > corpus.LONGEST_LINE >= max(lengths)
    assert sum(lengths) == len(line)
    assert grown.figures["added"] > 50


def test_no_run_that_the_trainer_gets_is_longer_than_the_longest(monkeypatch):
    runs, merges = [], letters.merges

    def spy(lines, *settings):
        runs.extend(len(run) for line in lines for run in line.split(" "))
        return merges(lines, *settings)

    monkeypatch.setattr(letters, "merges", spy)
    unspaced = "".join(thai(60)).replace(" ", "").replace("\n", "")
    extend(sentencepiece_like(), [unspaced], 400, script=THAI_SCRIPT)
    assert 1 < max(runs) <= pretokenize.LONGEST_RUN


def test_no_merge_crosses_the_end_of_a_text():
    old = sentencepiece_like()
    grown = extend(old, ["ขก"] * 10, old.vocab_size + 10, script=THAI_SCRIPT)
    tokens = set(grown.tokenizer.backend.get_vocab()) - set(old.backend.get_vocab())
    assert tokens == {"ก", "ข", "ขก"}


def test_runs_are_cut_at_the_longest():
    cut = growth._too_long(np.zeros(200, bool))
    assert np.flatnonzero(cut).tolist() == [63, 127, 191]
    with_border = np.zeros(200, bool)
    with_border[10] = True
    assert np.flatnonzero(growth._too_long(with_border)).tolist() == [74, 138]


def test_a_character_that_is_only_looked_up_gets_its_merges():
    """ignore_merges: a token that no merge makes is met alone only; inside a word it is bytes."""
    old = train(english(50), 300)
    spelt = Units(byte_fallback=False).spell("น")
    model = json.loads(old.backend.to_str())["model"]
    old = with_model(old, vocab=model["vocab"] | {spelt: 300}, ignore_merges=True)
    assert old.encode("น") == [300] and 300 not in old.encode("นน")
    grown = extend(old, LEARNT, 400, script=THAI_SCRIPT).tokenizer
    merges = json.loads(grown.backend.to_str())["model"]["merges"]
    assert spelt in {left + right for left, right in merges}
    assert grown.encode("น") == [300]


def test_as_good_as_a_vocabulary_from_nothing():
    # ANCHORS R5: bytes a token within 2 % of a from-scratch vocabulary of equal added size
    old = train(english(400), OLD_SIZE)
    for segment in (None, by_dictionary):
        grown = extend(old, LEARNT, old.vocab_size + GROWTH, script=THAI_SCRIPT, segment=segment)
        scratch = train(LEARNT, 259 + GROWTH, segment)
        ratio = bytes_per_token(grown.tokenizer, UNSEEN) / bytes_per_token(scratch, UNSEEN)
        assert ratio > 0.98


@pytest.mark.parametrize("name", ["phi-2", "phi-3-mini"])
def test_real_tokenizers_and_real_thai(name):
    folder, news = shared() / "tokenizers" / name, shared() / "text" / "th" / "thaigov_v2.jsonl.gz"
    if not folder.is_dir() or not news.is_file():
        pytest.skip(f"real data is not here: {folder}, {news}")
    with gzip.open(news, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for _, line in zip(range(120), lines)]
    old = Tokenizer.load(folder)
    grown = extend(old, texts[:50], old.vocab_size + 800, script=THAI_SCRIPT)
    assert grown.figures["added"] == 800
    assert bytes_per_token(grown.tokenizer, texts[50:]) > 2.5 * bytes_per_token(old, texts[50:])
    for text in texts[50:]:
        ids = grown.tokenizer.encode(text)
        assert grown.tokenizer.decode(ids) == text
    for line in english(50):
        assert grown.tokenizer.encode(line) == old.encode(line)
