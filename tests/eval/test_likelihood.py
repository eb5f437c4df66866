"""Bits per byte and choice scores against plain computations, one item at a time."""

import math

import pytest
import torch

from endonym.core.errors import DataError
from endonym.eval import likelihood
from endonym.eval.likelihood import Bits, Choice, bits_per_byte, choice_scores
from endonym.model import hf
from eval.tiny import ENGLISH, THAI, choice, context, model, tokenizer

TEXTS = [ENGLISH, THAI, "น้ำ", "a", "", THAI + ENGLISH, "ท่วม" * 30, "x" * 90]
# float32 logits of the same products in other shapes, summed over up to a hundred tokens
CLOSE = 2e-4


@torch.no_grad()
def plain_logprobs(ids: list[int]) -> list[float]:
    """log p(t_i | all before it) for i = 1.. in one row of its own."""
    made = model()
    logits = made.logits(made(torch.tensor([ids])))[0].double().log_softmax(-1)
    return [float(logits[i - 1, ids[i]]) for i in range(1, len(ids))]


def plain_bits(text: str, window: int) -> tuple[float, int]:
    """Every token scored with the tokens from `begin` on, where begin moves by half windows."""
    ids = tokenizer().encode(text)
    lead = next(
        (n for n in range(1, len(ids)) if "\ufffd" not in tokenizer().decode(ids[:n])), len(ids)
    )
    if len(ids) <= lead:
        return 0.0, 0
    bits, begin, done = 0.0, 0, lead
    while done < len(ids):
        piece = ids[begin : begin + window + 1]
        logprobs = plain_logprobs(piece)
        bits -= sum(logprobs[done - begin - 1 :]) / math.log(2)
        done = begin + len(piece)
        begin = done - window // 2
    return bits, len(text.encode()) - len(tokenizer().decode(ids[:lead]).encode())


@pytest.mark.parametrize("window", [128, 16, 7])
@pytest.mark.parametrize("rows", [None, 1, 3])
def test_bits_against_one_document_at_a_time(window, rows):
    found = bits_per_byte(model(), tokenizer(), TEXTS, context(rows_per_device=rows), window=window)
    for text, each in zip(TEXTS, found, strict=True):
        bits, size = plain_bits(text, window)
        assert each.bytes == size
        assert each.bits == pytest.approx(bits, abs=CLOSE)
    assert found[4] == Bits(0.0, 0)


def test_the_lead_is_whole_characters():
    """A Thai letter in two tokens: both are the lead, and its three bytes do not count."""
    bare = tokenizer().encode("ฬ")
    assert len(bare) == 2 and likelihood._lead(tokenizer(), bare) == 2
    assert likelihood._lead(tokenizer(), tokenizer().encode("ฬa")) == 2
    [found] = bits_per_byte(model(), tokenizer(), ["ฬa"], context())
    assert found.bytes == 1 and found.bits > 0


def test_with_an_opening_token_every_byte_is_scored():
    eos = tokenizer().eos_id
    [found] = bits_per_byte(model(), tokenizer(), ["น้ำ a"], context(), start=eos)
    wanted = -sum(plain_logprobs([eos, *tokenizer().encode("น้ำ a")])) / math.log(2)
    assert found.bytes == len("น้ำ a".encode())
    assert found.bits == pytest.approx(wanted, abs=CLOSE)


def test_every_token_of_a_long_document_is_scored_once():
    for length in range(2, 60):
        for window in (2, 5, 8):
            for first in (1, 2, 3):
                tokens = list(range(length))
                pieces = likelihood._windows(tokens, first, window, 0)
                labels = [label for piece in pieces for _, label, _ in piece.reads]
                assert labels == tokens[first:]
                for piece in pieces:
                    assert len(piece.tokens) <= window
                    # the label is what follows the token at that position
                    assert all(piece.tokens[p] + 1 == label for p, label, _ in piece.reads)
                for piece in pieces[1:]:
                    assert piece.reads[0][0] >= window // 2 - 1


def test_the_total_is_a_quotient_of_sums():
    assert likelihood.total([Bits(3.0, 1), Bits(1.0, 3)]) == 1.0
    with pytest.raises(DataError):
        likelihood.total([Bits(0.0, 0)])


def test_a_window_wider_than_the_model_is_refused():
    with pytest.raises(DataError, match="2 to 128"):
        bits_per_byte(model(), tokenizer(), ["a b"], context(), window=129)


ITEMS = [
    choice("en", ENGLISH, [" capital", " water", " the", " q"], 2),
    choice("long", THAI, ["มาก", "น้ำท่วมที่กรุงเทพ", "ของเด็กทุกคน"], 1),
    choice("same start", "the", [" water rose", " water", " water rose in the capital"], 0),
    choice("one letter", "a large ", ["a", "b", "c", "d"], 3),
    choice("seam", "the water r", ["ose", "ain"], 0),
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """transformers' own module on the exported weights: a forward for each choice, nothing shared."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("exported")
    hf.save(model(), folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.no_grad()
    def score(head: list[int], tail: list[int]) -> float:
        logits = theirs(torch.tensor([head + tail])).logits[0].double().log_softmax(-1)
        places = range(len(head) - 1, len(head) + len(tail) - 1)
        return sum(float(logits[p, label]) for p, label in zip(places, tail))

    return score


@pytest.mark.parametrize("rows", [None, 1])
def test_choices_against_transformers(plain, rows):
    found = choice_scores(model(), tokenizer(), ITEMS, context(rows_per_device=rows))
    for item, each in zip(ITEMS, found, strict=True):
        text = item.context.rstrip(" ")
        space = item.context[len(text) :]
        head = tokenizer().encode(text)
        for k, option in enumerate(item.choices):
            whole = tokenizer().encode(text + space + option)
            apart = tokenizer().encode(space + option)
            tail = whole[len(head) :] if each.joint else apart
            assert tail and (each.joint or tail == apart)
            assert each.scores[k] == pytest.approx(plain(head, tail), abs=CLOSE)
        assert each.id == item.id and each.gold == int(item.answer)
        assert each.bytes == [len(option.encode()) for option in item.choices]


def test_a_token_across_the_seam_is_seen_and_the_two_are_encoded_apart():
    found = choice_scores(model(), tokenizer(), ITEMS, context())
    head, whole = tokenizer().encode("the water r"), tokenizer().encode("the water rose")
    assert whole[: len(head)] != head, "the tokenizer no longer joins r and ose"
    # "long" is Thai: the context's end and a choice's beginning make one token as well
    assert [each.id for each in found if not each.joint] == ["long", "seam"]


def test_messages_are_the_context_where_no_text_is(plain):
    from endonym.tasks.base import Item

    messages = [{"role": "user", "content": "น้ำ?"}]
    item = Item("m", "choice", "t", messages=messages, choices=["น้ำ", "the"], answer="0")
    [found] = choice_scores(model(), tokenizer(), [item], context())
    head = tokenizer().encode_prompt(messages)
    for k, option in enumerate(item.choices):
        wanted = plain(head, tokenizer().encode(option))
        assert found.scores[k] == pytest.approx(wanted, abs=CLOSE)


def test_choices_along_one_way_share_a_forward_pass():
    head = [1, 2, 3]
    single = likelihood._shared(head, [[4], [5], [6]], 10)
    assert [tokens for tokens, _ in single] == [head]
    assert sorted(single[0][1]) == [(2, 4, 10), (2, 5, 11), (2, 6, 12)]
    mixed = likelihood._shared(head, [[4, 5], [4], [7, 8, 9]], 0)
    assert [tokens for tokens, _ in mixed] == [[1, 2, 3, 7, 8], [1, 2, 3, 4]]
    assert mixed[0][1] == [(2, 7, 2), (3, 8, 2), (4, 9, 2), (2, 4, 1)]


def test_the_two_ways_to_choose():
    each = Choice("x", [-4.0, -5.0, -4.0], [2, 10, 4], gold=1, joint=True)
    assert (each.chosen, each.chosen_norm) == (0, 1)  # of equals the first; -2, -0.5, -1 per byte
    assert (each.correct, each.correct_norm) == (False, True)


def test_bad_items_are_refused_by_name():
    for choices in ([], ["a", ""]):
        with pytest.raises(DataError, match="bad"):
            choice_scores(model(), tokenizer(), [choice("bad", "the", choices)], context())


def test_an_item_longer_than_the_context_is_read_in_windows():
    """Only the end of a long context can be seen, so what stands before it changes no score, and a
    choice that fills the context by itself has one; the item says so."""
    net, words, tail = model(), tokenizer(), "the cat sat " * 60
    one, other = (
        choice_scores(net, words, [choice("x", start + tail, ["a", "b"])], context())[0]
        for start in ("q " * 200, "r " * 300)
    )
    assert one.truncated and one.scores == pytest.approx(
        other.scores, abs=1e-4
    )  # fp32, batch shape
    filled = choice_scores(net, words, [choice("x", "the", ["a " * 400, "b"])], context())[0]
    assert filled.truncated and filled.scores[0] < filled.scores[1] < 0
    assert not choice_scores(net, words, [choice("x", "the", ["a"])], context())[0].truncated
