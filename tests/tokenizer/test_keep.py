"""keep < 1: which old tokens stay, that they stay reachable, and who gets the free ids."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from endonym.core.errors import DataError, RecipeError
from endonym.tokenizer import chat, keep
from endonym.tokenizer.extend import extend
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.train import train
from tokenizer.samples import ENGLISH, THAI_SCRIPT, english, thai
from tokenizer.test_extend import sentencepiece_like

LEARNT, UNSEEN = thai(400), thai(60, seed=1)
RARE = ["zebra quartz jukebox zephyr " * 4 + "\n"] * 20
USED = english(200, seed=5)
WORDS = st.lists(
    st.sampled_from([*ENGLISH, "zebra", "quartz", "don't", "12", "\n", "…"]), max_size=12
)


def state_of(tokenizer):
    return json.loads(tokenizer.backend.to_str())


@pytest.fixture(scope="module", params=["byte-level", "ignore_merges", "byte fallback"])
def old(request):
    if request.param == "byte fallback":
        return sentencepiece_like()
    made = train([*english(400), *RARE], 600)
    if request.param == "byte-level":
        return made
    state = state_of(made)
    state["model"]["ignore_merges"] = True
    return Tokenizer(Backend.from_str(json.dumps(state)), made.named, made.template)


@pytest.fixture(scope="module")
def grown(old):
    return extend(old, LEARNT, old.vocab_size + 20, script=THAI_SCRIPT, keep=0.7, usage=USED)


def names(tokenizer):
    return {n: token for token, n in tokenizer.backend.get_vocab(with_added_tokens=True).items()}


def test_kept_ids_never_move_and_free_ids_are_filled(old, grown):
    before, after, dropped = names(old), names(grown.tokenizer), set(grown.dropped)
    assert sorted(after) == list(range(old.vocab_size + 20))  # no gaps
    assert all(after[n] == token for n, token in before.items() if n not in dropped)
    assert all(after[n] != before[n] for n in dropped)
    assert set(grown.pieces) == dropped | set(range(old.vocab_size, old.vocab_size + 20))
    assert grown.dropped == sorted(dropped)


def test_the_share_is_kept_to_the_token(old):
    state = state_of(old)
    can_go = keep._free(state)
    for share in (0.3, 0.7, 0.95):
        gone = keep.lost(old, state, USED, share)
        assert len(can_go) - len(gone) == round(share * len(can_go))
        assert gone.items() <= can_go.items()


def test_what_is_used_most_stays(old):
    state = state_of(old)
    counts = keep.usage(old, USED)
    gone = keep.lost(old, state, USED, 0.7)
    kept = set(keep._free(state).values()) - set(gone.values())
    assert counts[sorted(kept)].sum() > 0.9 * counts[sorted(keep._free(state).values())].sum()
    used = {n for line in USED for n in old.encode(line)}
    assert np.flatnonzero(counts).tolist() == sorted(used)


def test_bytes_and_control_tokens_are_never_given_up(old):
    gone = keep.lost(old, state_of(old), USED, 0.01)
    after = keep.without(state_of(old), gone)["model"]["vocab"]
    control = {token["content"] for token in state_of(old)["added_tokens"]}
    assert control <= set(after)
    few = Tokenizer(
        Backend.from_str(json.dumps(keep.without(state_of(old), gone))), old.named, old.template
    )
    text = "any text: ภาษาไทย 한국어 \x00 👩‍🚀"
    assert few.decode(few.encode(text)) == text


def test_a_kept_token_brings_what_it_is_merged_from(old):
    state = state_of(old)
    gone = keep.lost(old, state, USED, 0.5)
    after = keep.without(state, gone)
    parts = keep.Derivations(map(tuple, state["model"]["merges"]))
    merges = set(map(tuple, after["model"]["merges"]))
    for token in after["model"]["vocab"]:
        if parts.parts(token):
            assert parts.parts(token) in merges
    model = Backend.from_str(json.dumps(after)).model
    for token in set(keep._free(state)) - set(gone):
        if parts.parts(token):
            assert [part.value for part in model.tokenize(token)] == [token]


@given(words=WORDS)
def test_text_whose_tokens_are_all_kept_keeps_its_ids(old, grown, words):
    text = " ".join(words)
    ids = old.encode(text, literal=True)
    new = grown.tokenizer.encode(text, literal=True)
    assert grown.tokenizer.decode(new) == old.decode(ids)
    if not set(ids) & set(grown.dropped):
        assert new == ids


def test_text_in_use_keeps_its_ids_and_rare_text_pays(old, grown):
    def length(tokenizer, texts):
        return sum(map(len, tokenizer.encode_batch(texts)))

    used, rare = (length(grown.tokenizer, texts) / length(old, texts) for texts in (USED, RARE))
    assert used < 1.2
    if "zebra" in old.decode(range(old.vocab_size)):  # the toy SentencePiece has no rare words
        assert rare > 1.5 * used
    assert length(grown.tokenizer, UNSEEN) < 0.5 * length(old, UNSEEN)


def test_pieces_are_those_of_the_whole_old_tokenizer(old, grown):
    after, model = names(grown.tokenizer), old.backend.model
    for new, pieces in grown.pieces.items():
        assert pieces == [part.id for part in model.tokenize(after[new])]
        assert all(0 <= piece < old.vocab_size for piece in pieces)


def test_the_size_may_stay_and_control_tokens_take_free_ids():
    old = sentencepiece_like()
    same = extend(
        old,
        LEARNT,
        old.vocab_size,
        script=THAI_SCRIPT,
        keep=0.5,
        usage=USED,
        specials=chat.SPECIALS,
    )
    assert same.tokenizer.vocab_size == old.vocab_size
    assert {same.tokenizer.special(text) for text in chat.SPECIALS} <= set(same.dropped)
    assert same.tokenizer.encode("<|im_end|>") == [same.tokenizer.special("<|im_end|>")]
    assert same.figures["dropped"] == len(same.dropped) == same.figures["added"]
    assert same.figures["kept"] == old.vocab_size - len(same.dropped)
    with pytest.raises(DataError, match="smaller than the old one"):
        extend(old, LEARNT, old.vocab_size - 1, script=THAI_SCRIPT, keep=0.5)


def test_a_dropped_token_that_is_learnt_again_has_its_old_id():
    first = extend(train(english(50), 300), LEARNT, 450, script=THAI_SCRIPT).tokenizer
    again = extend(first, LEARNT, 450, script=THAI_SCRIPT, keep=0.4, usage=USED)
    assert again.figures["restored"] > 0
    before, after = names(first), names(again.tokenizer)
    thai_before = {token: n for n, token in before.items() if n >= 300}
    back = [token for n, token in after.items() if token in thai_before]
    assert back and all(first.special(t) == again.tokenizer.special(t) for t in back)


def test_it_loads_in_auto_tokenizer_with_the_same_ids(old, grown, tmp_path):
    from transformers import AutoTokenizer

    grown.save(tmp_path)
    auto = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*UNSEEN[:20], *USED[:20], *RARE[:1], "<|im_end|> <s>"]:
        assert auto.encode(text, add_special_tokens=False) == grown.tokenizer.encode(text)
    assert len(auto) == grown.tokenizer.vocab_size
    assert json.loads((tmp_path / "pieces.json").read_text())["dropped"] == grown.dropped


def test_merges_of_one_token_in_several_ways():
    # abc = ab + c or a + bc: from its letters BPE goes a+b first, so ab is what abc needs
    parts = keep.Derivations([("a", "b"), ("b", "c"), ("a", "bc"), ("ab", "c"), ("x", "yz")])
    assert parts.parts("abc") == ("ab", "c")
    assert parts.family("abc", set()) == {"abc", "ab", "a", "b", "c"}
    assert parts.family("abc", {"ab"}) == {"abc", "c"}
    assert parts.parts("xyz") == ()  # no merge makes yz


def test_bad_shares_and_texts_are_said():
    old = sentencepiece_like()
    for share in (0, -1, 1.1):
        with pytest.raises(RecipeError, match="share of the old vocabulary"):
            extend(old, LEARNT, 700, script=THAI_SCRIPT, keep=share)
    with pytest.raises(DataError, match="no text to count"):
        extend(old, LEARNT, 700, script=THAI_SCRIPT, keep=0.5, usage=[""])
    with pytest.raises(DataError, match="fewer new tokens than old ones were dropped"):
        extend(train(english(400), 600), ["น้ำ น้ำ"], 600, script=THAI_SCRIPT, keep=0.1, usage=USED)
