"""EVALUATION R5 and R13: the order of samples hangs on (seed, step) alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.fake import conversations, documents
from endonym.core.errors import RecipeError
from endonym.data.loader import Loader

STEPS, ROWS = 200, 12
PARTS = ("tokens", "labels", "weights", "segments", "positions")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    rng = np.random.default_rng(0)
    return [
        documents(folder / "documents", rng.integers(1, 120, 700)),
        conversations(folder / "talks", rng.integers(1, 30, (150, 2)).tolist()),
        documents(folder / "few", rng.integers(1, 20, 30)),
    ]


def loader(stores):
    """Shuffled, packed, mixed, and more than one epoch of each within the 200 steps."""
    return Loader(stores, [0.6, 0.3, 0.1], rows_per_step=ROWS, row_length=48, seed=5)


@pytest.fixture(scope="module")
def whole(stores):
    run = loader(stores)
    assert min(run.state(STEPS).values()) > 1 and max(run.state(STEPS).values()) > 20
    return [run.sequences(step) for step in range(STEPS)]


def test_resumed_at_every_step_the_order_is_the_same(stores, whole):
    for step in range(STEPS):
        resumed = loader(stores)
        assert resumed.sequences(step) == whole[step]
        if step % 20 == 0:  # and what follows
            assert [resumed.sequences(n) for n in range(step, STEPS)] == whole[step:]


def test_the_same_from_disk_in_another_place(stores, whole, tmp_path):
    import shutil

    from endonym.data.store import TokenStore

    copies = [TokenStore(shutil.copytree(store.folder, tmp_path / store.name)) for store in stores]
    moved, run = loader(copies), loader(stores)
    assert moved.identity == run.identity
    assert [moved.sequences(step) for step in range(0, STEPS, 9)] == whole[::9]


@given(
    step=st.integers(0, STEPS - 1),
    parts=st.sampled_from([1, 2, 3, 4, 6, 12]),
    batch=st.integers(1, 12),
)
def test_no_split_into_ranks_and_micro_batches_changes_it(stores, step, parts, batch):
    run = loader(stores)
    rows = run.rows(step)
    ranks = [run.rows(step, (rank, parts)) for rank in range(parts)]
    for name in PARTS:
        assert torch.equal(torch.cat([getattr(each, name) for each in ranks]), getattr(rows, name))
    pieces = [piece for each in ranks for piece in each.split(batch)]
    ids = [
        tokens[inside > 0].tolist()
        for piece in pieces
        for tokens, inside in zip(piece.tokens, piece.segments)
    ]
    assert ids == [t[s > 0].tolist() for t, s in zip(rows.tokens, rows.segments)]
    assert sum(float(piece.weights.sum()) for piece in pieces) == float(rows.weights.sum())


def test_rows_that_cannot_be_shared_out(stores):
    with pytest.raises(RecipeError, match="among 5 processes"):
        loader(stores).rows(0, (0, 5))


def test_names_say_what_is_in_each_row(stores, whole):
    run = loader(stores)
    shown = run.names(3)
    for text, row in zip(shown, whole[3], strict=True):
        name, _, rest = text.partition(": ")
        pieces = [each.partition("+") for each in rest.split()]
        assert [(n, int(p[0]), int(p[2] or 0)) for n, p in ((name, p) for p in pieces)] == [
            (stores[store].name, sequence, start) for store, sequence, start in row
        ]
    assert any("+48" in text for step in range(20) for text in run.names(step))


def test_a_step_of_a_sequence_kept_out_is_another_order(stores):
    keep = [np.arange(len(stores[0])) % 3 > 0, None, None]
    settings = {"rows_per_step": ROWS, "row_length": 48, "seed": 5}
    some = Loader(stores, [0.6, 0.3, 0.1], **settings, keep=keep)
    assert some.identity != loader(stores).identity
    everything = [np.ones(len(store), bool) for store in stores]
    same = Loader(stores, [0.6, 0.3, 0.1], **settings, keep=everything)
    assert same.identity == loader(stores).identity
    seen = {s for step in range(60) for row in some.sequences(step) for n, s, _ in row if n == 0}
    assert seen and all(sequence % 3 for sequence in seen)
    assert some.report(1)[0]["filtered"] == 234


@pytest.mark.parametrize("weights", [[0.6, 0.3, 0.1], None])
@pytest.mark.parametrize("steps", [1, 7, 61, 200])
def test_measured_is_what_the_rows_hold(stores, weights, steps):
    run = Loader(stores, weights, rows_per_step=ROWS, row_length=48, seed=5)
    tokens, targets, rows = [0] * 3, [0] * 3, [0] * 3
    for step in range(steps):
        drawn = run.rows(step)
        for line, (store, _) in enumerate(run.places(step)):
            rows[store] += 1
            tokens[store] += int((drawn.segments[line] > 0).sum())
            targets[store] += int((drawn.weights[line] > 0).sum())
    found = run.measured(steps)
    for number, store in enumerate(stores):
        source = found["sources"][store.name]
        counted = (rows[number], tokens[number], targets[number])
        assert (source["rows"], source["tokens"], source["targets"]) == counted
        assert source["share"] == tokens[number] / sum(tokens)
        assert source["epochs"] == rows[number] / run.num_rows[number]
    assert (found["tokens"], found["targets"]) == (sum(tokens), sum(targets))
    assert found["targets"] < found["tokens"]


def test_measured_by_language_and_origin(tmp_path):
    store = documents(
        tmp_path / "s", [3, 4, 5], languages=["en", "th", "en"], sources=["a", "a", "b"]
    )
    run = Loader([store], rows_per_step=1, row_length=5)
    assert run.num_rows == [3]
    found = run.measured(6)
    assert found["languages"]["en"] == {"tokens": 16, "targets": 16, "share": 16 / 24}
    assert found["languages"]["th"]["tokens"] == 8
    assert found["origins"]["a"]["tokens"] == 14 and found["origins"]["b"]["tokens"] == 10
    # far ahead it is as exact: 10^7 epochs and one row
    assert run.measured(3 * 10**7)["tokens"] == 12 * 10**7


def test_the_state_before_a_step(stores):
    run = loader(stores)
    assert set(run.state(0).values()) == {0.0}
    assert list(run.state(5)) == ["epoch/documents", "epoch/talks", "epoch/few"]
    epochs = [row["epochs"] for row in run.report(77)]
    assert list(run.state(77).values()) == pytest.approx(epochs)


def test_two_sources_of_one_name(stores):
    with pytest.raises(RecipeError, match="one name"):
        Loader([stores[0], stores[0]], [0.5, 0.5], rows_per_step=1, row_length=8)
