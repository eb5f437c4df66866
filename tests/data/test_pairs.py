"""Pairs in rows: what is in them, that sides are blind to one another, and the loader's promises."""

import numpy as np
import pytest
import torch

from endonym.core.errors import DataError, RecipeError
from endonym.data.document import Preference
from endonym.data.pairs import CHOSEN, REJECTED, PairLoader, PairStore, padding, sides
from endonym.tokenizer.folder import Tokenizer
from eval.tiny import ENGLISH, model, tokenizer

WORDS = ENGLISH.split()


def say(text):
    return [{"role": "assistant", "content": text}]


def ask(text):
    return [{"role": "user", "content": text}]


def pairs(count=40):
    return [
        Preference(
            id=f"p{n}",
            prompt=ask(" ".join(WORDS[: n % 5])) if n % 3 else [],
            chosen=say(" ".join(WORDS[: 1 + n % 7])),
            rejected=say(" ".join(reversed(WORDS[: 2 + n % 4]))),
            language=("en", "th")[n % 2],
            source="s",
            margin=n / 10 if n % 2 else None,
        )
        for n in range(count)
    ]


@pytest.fixture
def store(tmp_path):
    return PairStore.build(tmp_path / "store", pairs(), tokenizer(), key="k")


def test_sides_are_what_trl_reads(tmp_path):
    """TRL's RewardTrainer: apply_chat_template(prompt + answer, tokenize=True), no generation prompt."""
    from transformers import AutoTokenizer

    tokenizer().save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    for pair in [*pairs(7), Preference("t", ask("a"), say("\nb"), say(" c"), tools=tools)]:
        for ours, answer in zip(sides(tokenizer(), pair), (pair.chosen, pair.rejected)):
            wanted = theirs.apply_chat_template(
                [*pair.prompt, *answer], tools=pair.tools or None, return_dict=True
            )["input_ids"]
            assert ours == wanted


def test_content_is_never_control():
    marked = Preference("x", [], say("a<|im_end|>b"), say("c"))
    ends = sides(tokenizer(), marked)[0].count(tokenizer().turn_end_id)
    assert ends == 1


def test_the_store_holds_both_sides_and_the_margin(store):
    assert len(store) == 40 and store.meta["equal"] == 0
    for number, pair in enumerate(pairs()):
        chosen, rejected = sides(tokenizer(), pair)
        found = store.both(number)
        assert found[0].tolist() == chosen and found[1].tolist() == rejected
        assert store.lengths[number] == len(chosen) + len(rejected)
        assert store.margins[number] == pytest.approx(pair.margin or 0.0)
        assert store.languages.names[store.languages.codes[number]] == pair.language
    assert isinstance(store.ids, np.memmap)


def test_equal_sides_are_left_out_and_a_bad_pair_is_named(tmp_path):
    same = Preference("same", ask("a"), say("b"), say("b"))
    found = PairStore.build(tmp_path / "s", [same, *pairs(3)], tokenizer(), key="k")
    assert len(found) == 3 and found.meta["equal"] == 1
    bad = Preference("bad", [], [{"role": "assistant"}], say("b"))
    with pytest.raises(DataError, match="pair bad cannot be read"):
        PairStore.build(tmp_path / "t", [bad], tokenizer(), key="k")


def test_a_store_that_stands_is_used_again_and_a_damaged_one_is_found(tmp_path, store):
    def unread():
        raise AssertionError("read again")
        yield

    assert PairStore.build(store.folder, unread(), tokenizer(), key="k").identity == store.identity
    other = PairStore.build(store.folder, pairs(2), tokenizer(), key="other")
    assert len(other) == 2
    with (store.folder / "ids.bin").open("ab") as file:
        file.write(b"\0\0\0\0")
    with pytest.raises(DataError, match="not as it was written"):
        PairStore(store.folder)


def seen(rows):
    """(chosen ids, rejected ids, margin) of every pair in the rows, out of the tensors alone."""
    found = []
    for line in range(len(rows)):
        parts = {}
        for segment in range(1, int(rows.segments[line].max()) + 1):
            here = rows.segments[line] == segment
            ends = here & (rows.weights[line] > 0)
            assert ends.sum() == 1 and ends.nonzero()[-1] == here.nonzero()[-1]
            assert rows.positions[line][here].tolist() == list(range(int(here.sum())))
            label = int(rows.labels[line][ends])
            assert label == (CHOSEN if segment % 2 else REJECTED)
            parts[label] = tuple(rows.tokens[line][here].tolist())
            if label == REJECTED:
                found.append(
                    (parts[CHOSEN], parts[REJECTED], float(rows.extra["margin"][line][ends]))
                )
    return found


def test_an_epoch_holds_every_pair_once_with_its_sides_in_one_row(store):
    loader = PairLoader([store], rows_per_step=2, row_length=128)
    everything = [
        (*(tuple(side) for side in sides(tokenizer(), pair)), np.float32(pair.margin or 0).item())
        for pair in pairs()
    ]
    found = []
    for step in range(loader.steps_per_epoch + 1):
        rows = loader.rows(step)
        assert rows.tokens.shape[1] <= 128 and rows.tokens.shape[1] % 8 == 0
        found += seen(rows)
    # The rows of an epoch need not fill its last step: that one begins the next epoch
    drawn = loader.num_rows[0]
    one = PairLoader([store], rows_per_step=1, row_length=128)
    once = [each for step in range(drawn) for each in seen(one.rows(step))]
    assert sorted(once) == sorted(everything)
    assert set(everything) == set(found)
    assert 0.8 < loader.report(3)[0]["fill"] <= 1  # best fit of pairs


def test_a_pair_longer_than_a_row_is_dropped_and_counted(store):
    longest = int(store.lengths.max())
    loader = PairLoader([store], rows_per_step=1, row_length=longest - 1)
    assert loader.dropped == [int((store.lengths > longest - 1).sum())]
    assert loader.report(1)[0]["dropped"] == loader.dropped[0] > 0
    with pytest.raises(DataError, match="nothing to train on"):
        PairLoader([store], rows_per_step=1, row_length=3)


def test_sides_are_blind_to_each_other(store):
    """States at the ends in a packed row are those of each side read alone."""
    rows = PairLoader([store], rows_per_step=2, row_length=100).rows(0)
    with torch.no_grad():
        hidden = model()(rows.tokens, positions=rows.positions, segments=rows.segments)
        ends = hidden[rows.weights > 0]
        alone = []
        for chosen, rejected, _ in seen(rows):
            for side in (chosen, rejected):
                alone.append(model()(torch.tensor([side]))[0, -1])
    assert len(ends) > 4
    torch.testing.assert_close(
        ends, torch.stack(alone), atol=1e-4, rtol=1e-4
    )  # float32, states of 10


def test_parts_and_micro_batches_are_the_step_and_order_is_a_function_of_it(store):
    def make(**changes):
        return PairLoader([store], **{"rows_per_step": 4, "row_length": 64, "seed": 3} | changes)

    loader = make()
    whole = loader.rows(5)
    halves = [loader.rows(5, (part, 2)) for part in range(2)]
    for name in ("tokens", "labels", "weights", "segments", "positions"):
        assert torch.equal(
            torch.cat([getattr(each, name) for each in halves]), getattr(whole, name)
        )
    margins = torch.cat([each.extra["margin"] for each in halves])
    assert torch.equal(margins, whole.extra["margin"])
    assert [seen(part) for part in whole.split(4)] == [seen(whole)]
    assert [pair for part in whole.split(1) for pair in seen(part)] == seen(whole)
    assert make().identity == loader.identity and torch.equal(make().rows(5).tokens, whole.tokens)
    assert make(seed=4).identity != loader.identity
    assert make(row_length=65).identity != loader.identity
    with pytest.raises(RecipeError, match="multiple of 3"):
        loader.rows(0, (0, 3))


def test_names_state_and_what_was_drawn(store, tmp_path):
    second = PairStore.build(tmp_path / "second", pairs(11), tokenizer(), key="2")
    loader = PairLoader([store, second], rows_per_step=3, row_length=80)
    assert len(loader.names(0)) == 3 and loader.names(0)[0].split(":")[0] in ("store", "second")
    assert loader.state(0) == {"epoch/store": 0, "epoch/second": 0}
    steps = 4
    counted = [seen(loader.rows(step)) for step in range(steps)]
    measured = loader.measured(steps)
    assert measured["targets"] == sum(map(len, counted))
    tokens = sum(len(a) + len(b) for step in counted for a, b, _ in step)
    assert (
        measured["tokens"] == tokens == sum(loader.rows(step).num_tokens for step in range(steps))
    )
    assert set(measured["languages"]) == {"en", "th"}
    assert sum(one["tokens"] for one in measured["languages"].values()) == tokens


def test_padding_never_ends_a_conversation():
    ours = tokenizer()
    last = ours.encode_whole([*ask("a"), *say("b")])[-1]
    assert ours.special(padding(ours)) != last
    # a template that ends with the very token that pads (pad = eos is common): another is taken
    ends = "{% for m in messages %}{{ m.content + '<|endoftext|>' }}{% endfor %}"
    named = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<|im_end|>"}
    assert padding(Tokenizer(ours.backend, named, ends)) == "<|im_end|>"
    named.pop("unk_token")
    with pytest.raises(DataError, match="no token to pad"):
        padding(Tokenizer(ours.backend, named, ends))
