from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endonym.core.errors import DataError
from endonym.data.document import Conversation, Document
from endonym.data.loader import Loader
from endonym.data.store import TokenStore
from endonym.tokenizer.train import train

TEXTS = [" ".join(["ab", "ba", "aab"][: n % 4]) + f" {n}" * (n % 17) for n in range(120)]


def chat(n):
    return [
        {"role": "user", "content": f"what is {n}?" + " please" * (n % 5)},
        {"role": "assistant", "content": f"{n}" * (n % 3 + 1)},
    ]


@pytest.fixture(scope="module")
def tokenizer():
    return train(TEXTS * 3, 300)


@pytest.fixture(scope="module")
def documents(tokenizer, tmp_path_factory):
    rows = [Document(str(n), text) for n, text in enumerate(TEXTS)]
    return TokenStore.build(tmp_path_factory.mktemp("a") / "documents", rows, tokenizer, key="k")


@pytest.fixture(scope="module")
def chats(tokenizer, tmp_path_factory):
    rows = [Conversation(str(n), chat(n)) for n in range(60)]
    return TokenStore.build(tmp_path_factory.mktemp("b") / "chats", rows, tokenizer, key="k")


def predictions(loader, step):
    """(token, label) pairs with a weight, and what the row layout must satisfy."""
    rows = loader.rows(step)
    tokens, labels = rows.tokens.numpy(), rows.labels.numpy()
    segments, positions, weights = (
        rows.segments.numpy(),
        rows.positions.numpy(),
        rows.weights.numpy(),
    )
    assert (weights[segments == 0] == 0).all() and (tokens[segments == 0] == 0).all()
    assert rows.tokens.shape[1] % 8 == 0 or rows.tokens.shape[1] == loader.row_length
    assert (segments.max(axis=1) > 0).all()
    for line in range(len(tokens)):
        for segment in range(1, segments[line].max() + 1):
            inside = np.flatnonzero(segments[line] == segment)
            assert (np.diff(inside) == 1).all()  # side by side
            assert positions[line, inside].tolist() == list(range(len(inside)))
            # input-aligned: inside a document the label is the next token
            assert labels[line, inside[:-1]].tolist() == tokens[line, inside[1:]].tolist()
    taken = weights > 0
    return list(zip(tokens[taken].tolist(), labels[taken].tolist()))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("row_length", [16, 37, 64])
def test_an_epoch_predicts_every_token_of_every_document_once(documents, packed, row_length):
    loader = Loader([documents], rows_per_step=1, row_length=row_length, packed=packed)
    seen = [pair for step in range(loader.steps_per_epoch) for pair in predictions(loader, step)]
    expected = []
    for number in range(len(documents)):
        tokens = documents.tokens(number).tolist()
        expected += pairwise(tokens)
    assert sorted(seen) == sorted(expected)


def test_an_epoch_of_chats_predicts_the_assistants_tokens_only(tokenizer, chats):
    loader = Loader([chats], rows_per_step=1, row_length=64)
    seen = [pair for step in range(loader.steps_per_epoch) for pair in predictions(loader, step)]
    expected = []
    for number in range(len(chats)):
        ids, supervised = chats.tokens(number).tolist(), chats.supervised(number)
        expected += [(a, b) for a, b, s in zip(ids, ids[1:], supervised[1:]) if s]
    assert sorted(seen) == sorted(expected)
    assert sum(label == tokenizer.turn_end_id for _, label in seen) == len(chats)


def test_a_long_conversation_keeps_its_beginning_or_is_dropped(tokenizer, tmp_path):
    short = chat(3)
    long = [{"role": "user", "content": "x " * 100}, {"role": "assistant", "content": "y"}]
    mid = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "z " * 60}]
    store = TokenStore.build(tmp_path / "s", [short, long, mid], tokenizer, key="k")
    loader = Loader([store], rows_per_step=1, row_length=64)
    assert (loader.shortened, loader.dropped) == ([2], [1])
    assert {
        s for step in range(loader.steps_per_epoch) for (_, s, _) in loader.sequences(step)[0]
    } == {0, 2}
    with pytest.raises(DataError, match="longer than a row"):
        Loader([store], rows_per_step=1, row_length=64, never_truncate=True)


def test_resuming_at_any_step_gives_the_same_rows(documents, chats):
    # ANCHORS 26, EVALUATION R13: 200 steps, shuffled, packed, mixed, many epochs
    def make():
        return Loader([documents, chats], [0.7, 0.3], rows_per_step=3, row_length=48, seed=5)

    whole = make()
    order = [whole.sequences(step) for step in range(200)]
    for step in range(199, -1, -7):
        resumed = make()
        assert resumed.sequences(step) == order[step]
        assert resumed.identity == whole.identity
    first, again = whole.rows(150), make().rows(150)
    assert all(
        (getattr(first, n) == getattr(again, n)).all()
        for n in ("tokens", "labels", "weights", "segments", "positions")
    )


def test_micro_batches_do_not_change_the_order(documents):
    rows = Loader([documents], rows_per_step=4, row_length=32).rows(3)
    assert [row for part in rows.split(3) for row in part.tokens.tolist()] == rows.tokens.tolist()


def test_seeds_and_data_have_their_own_identity(documents, chats):
    def identity(stores=(documents,), seed=0, **settings):
        settings = {"rows_per_step": 2, "row_length": 32, **settings}
        return Loader(list(stores), seed=seed, **settings).identity

    assert (
        len({identity(), identity(seed=1), identity((documents, chats)), identity(row_length=40)})
        == 4
    )


def test_without_weights_all_stores_are_seen_once_an_epoch(documents, chats):
    loader = Loader([documents, chats], rows_per_step=1, row_length=64)
    seen = [place for step in range(loader.steps_per_epoch) for place in loader.places(step)]
    assert sorted(seen) == [(s, r) for s, rows in enumerate(loader.num_rows) for r in range(rows)]


def test_the_report_counts_what_was_drawn(documents, chats):
    loader = Loader([documents, chats], [0.75, 0.25], rows_per_step=4, row_length=48)
    report = loader.report(100)
    drawn = [store for step in range(100) for store, _ in loader.places(step)]
    assert [entry["rows"] for entry in report] == [drawn.count(0), drawn.count(1)] == [300, 100]
    assert report[1]["epochs"] == 100 / loader.num_rows[1]
    assert sum(entry["share"] for entry in report) == pytest.approx(1)
    assert all(0.8 < entry["fill"] <= 1 for entry in report)


def test_a_source_with_a_weight_and_no_rows_is_named(tokenizer, tmp_path):
    full, empty = (
        TokenStore.build(tmp_path / name, rows, tokenizer, key=name)
        for name, rows in (("full", ["12345"]), ("empty", [""]))
    )
    settings = {"rows_per_step": 1, "row_length": 8}
    with pytest.raises(DataError, match="nothing to train on") as error:
        Loader([full, empty], [0.5, 0.5], **settings)
    assert error.value.where == "empty" and "empty: 1 sequences" in error.value.got
    Loader([full, empty], [1.0, 0.0], **settings)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(8, 24))
def test_any_lengths_any_row(tokenizer, tmp_path_factory, lengths, row_length):
    folder = tmp_path_factory.mktemp("any") / "s"
    store = TokenStore.build(folder, ["1" * n for n in lengths], tokenizer, key="k")
    if not sum(lengths):
        with pytest.raises(DataError, match="nothing to train on"):
            Loader([store], rows_per_step=1, row_length=row_length)
        return
    loader = Loader([store], rows_per_step=1, row_length=row_length)
    seen = [pair for step in range(loader.steps_per_epoch) for pair in predictions(loader, step)]
    assert len(seen) == sum(lengths)
