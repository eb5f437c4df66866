"""K-EXAONE's long stage (METHODS 8.7): whole documents in packed rows, none of which sees another.

What the loader makes goes through the real decoder: in float32 the logits of every document in its row
are those of the document alone, to 1e-5, for full and sliding attention, rotated and not, dense and with
experts of both routers.
"""

import numpy as np
import pytest
import torch

from data.fake import Letters
from endonym.core.errors import DataError
from endonym.data.document import Document
from endonym.data.loader import Loader
from endonym.data.store import TokenStore
from endonym.model.config import ModelConfig
from endonym.model.hf import new

S, F = "sliding_attention", "full_attention"
SIZES = dict(
    vocab_size=128, hidden_size=32, intermediate_size=48, num_hidden_layers=4,
    num_attention_heads=4, num_key_value_heads=2,
)  # fmt: skip
WINDOWS = dict(sliding_window=5, layer_types=[S, S, S, F])
EXPERTS = dict(count=4, chosen=2, width=24)
KINDS = {
    "full": {},
    "windows": WINDOWS,
    "windows, none rotated but these": WINDOWS | dict(rope_layers="sliding", qk_norm=True),
    "experts, softmax": dict(experts=EXPERTS),
    "experts, sigmoid, windows": WINDOWS
    | dict(
        rope_layers="sliding", experts=EXPERTS | dict(router="sigmoid", shared=1, first_dense=1)
    ),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng = np.random.default_rng(0)
    texts = [
        "".join(map(chr, rng.integers(3, 127, length)))
        for length in [64, 63, 50, 37, 37, 33, 20, 14, 12, 9, 8, 5, 4, 2, 1]
    ]
    rows = [Document(str(n), text) for n, text in enumerate(texts)]
    return TokenStore.build(tmp_path_factory.mktemp("long") / "s", rows, Letters(), key="k")


def loader(store, **settings):
    return Loader([store], rows_per_step=2, row_length=64, never_truncate=True, **settings)


def test_every_document_is_whole_and_its_positions_begin_anew(store):
    run, seen = loader(store), []
    for step in range(run.num_rows[0] // 2):
        rows = run.rows(step)
        for line, pieces in enumerate(run.sequences(step)):
            for segment, (_, sequence, start) in enumerate(pieces, start=1):
                inside = rows.segments[line] == segment
                tokens = store.tokens(sequence).tolist()
                assert start == 0
                assert rows.tokens[line][inside].tolist() == tokens[:-1]
                assert rows.labels[line][inside].tolist() == tokens[1:]
                assert rows.positions[line][inside].tolist() == list(range(len(tokens) - 1))
                seen.append(sequence)
    assert sorted(seen) == list(range(len(store)))


def test_a_document_one_token_too_long_is_refused(store):
    with pytest.raises(DataError, match="1 sequences are longer") as error:
        Loader([store], rows_per_step=2, row_length=63, never_truncate=True)
    assert "sequence 0" in str(error.value)
    # one that is not drawn does not matter
    keep = [np.arange(len(store)) > 0]
    Loader([store], rows_per_step=2, row_length=63, never_truncate=True, keep=keep)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_packed_documents_have_the_logits_of_each_alone(store, kind):
    lm = new(ModelConfig(**{**SIZES, **KINDS[kind]}), 0).eval()
    for weight in lm.parameters():
        if weight.dim() > 1:
            weight.mul_(3)  # attention that is far from even
    run = loader(store)
    packed = 0
    for step in range(run.num_rows[0] // 2):
        rows = run.rows(step)
        logits = lm.logits(lm(rows.tokens, positions=rows.positions, segments=rows.segments))
        for line, pieces in enumerate(run.sequences(step)):
            packed += len(pieces) > 1
            for segment, (_, sequence, _) in enumerate(pieces, start=1):
                ids = torch.from_numpy(store.tokens(sequence)[:-1].astype(np.int64))[None]
                alone = lm.logits(lm(ids))[0]
                inside = rows.segments[line] == segment
                torch.testing.assert_close(logits[line][inside], alone, rtol=0, atol=1e-5)
    assert packed
