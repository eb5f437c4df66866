"""grow_rows: old rows bit for bit, new rows the mean of their pieces."""

import pytest
import torch

from endonym.core.errors import DataError, RecipeError
from endonym.methods.nll import nll
from endonym.model.config import ModelConfig
from endonym.model.hf import load, new, save
from endonym.surgery.vocab import grow_rows, nearest, rows_for

PIECES = {11: [0, 1, 2, 3], 12: [5], 13: [4, 4, 6]}


def model(tied, dtype=torch.float32):
    config = ModelConfig(
        vocab_size=11, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    return new(config, 0).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_rows(tied, dtype):
    old, grown = model(tied, dtype), grow_rows(model(tied, dtype), PIECES, 14)
    ends = [
        (old.model.embed_tokens.weight, grown.model.embed_tokens.weight),
        (old.head, grown.head),
    ]
    for before, after in ends:
        assert after.shape == (14, 16) and after.requires_grad
        assert torch.equal(after[:11], before), "an old row changed"
        assert torch.equal(after[12], before[5]), "one piece is a copy"
        assert torch.equal(after[11], before[:4].float().mean(0).to(dtype))
        # a piece that occurs twice counts twice
        assert torch.equal(after[13], before[[4, 4, 6]].float().mean(0).to(dtype))
    assert grown.config.vocab_size == 14
    assert (grown.head is grown.model.embed_tokens.weight) == tied
    assert sum(1 for _ in grown.parameters()) == sum(1 for _ in old.parameters())


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_old_logits_are_unchanged(tied):
    tokens = torch.arange(11)[None]
    before = model(tied)
    after = grow_rows(model(tied), PIECES, 14)
    hidden = after(tokens)
    assert torch.equal(hidden, before(tokens))
    # one more tile of columns in the product of matrices: the last bit
    old, grown = before.logits(hidden), after.logits(hidden)[..., :11]
    torch.testing.assert_close(old, grown, rtol=0, atol=1e-6)


def test_saved_loaded_and_trained(tmp_path):
    save(grow_rows(model(True), PIECES, 14), tmp_path)
    grown = load(tmp_path)
    ids = torch.tensor([[11, 3, 13]])
    loss = nll(grown(ids), grown.head, ids, torch.ones(1, 3))
    loss.value.backward()
    assert (grown.model.embed_tokens.weight.grad[[11, 13]] != 0).any(1).all()


def test_mean_beats_random_on_text_of_the_new_tokens():
    # A model that has learned "4, then 5 or 6, then 4 ..." meets a token that stands for 5 or 6.
    torch.manual_seed(0)
    lm = model(False)
    optimiser = torch.optim.AdamW(lm.parameters(), lr=3e-2)
    for step in range(60):
        ids = torch.tensor([[4, 5 + step % 2] * 6])
        loss = nll(lm(ids), lm.head, ids.roll(-1, 1), torch.ones(1, 12))
        optimiser.zero_grad()
        (loss.value / 12).backward()
        optimiser.step()
    text = torch.tensor([[4, 11] * 6])
    losses = {}
    for init in ("mean", "random"):
        grown = model(False)
        grown.load_state_dict(lm.state_dict())
        grown = grow_rows(grown, {11: [5, 6]}, 12, init=init)
        with torch.no_grad():
            weights = torch.ones(1, 12)
            losses[init] = nll(grown(text), grown.head, text.roll(-1, 1), weights).value.item()
    assert losses["mean"] < losses["random"] - 1


def test_other_initialisations_and_padding():
    old = model(False).head
    random = grow_rows(model(False), PIECES, 16, init="random", seed=1).head
    again = grow_rows(model(False), {}, 16, init="mean", seed=1).head
    assert torch.equal(random, again), "without pieces a row is drawn; by seed and row number alone"
    assert not torch.equal(random[11:], grow_rows(model(False), {}, 16, seed=2).head[11:])
    assert torch.equal(random[:11], old)
    assert (grow_rows(model(False), PIECES, 16, init="zero").head[11:] == 0).all()
    with pytest.raises(RecipeError, match="mean or overlap or covariance"):
        grow_rows(model(False), PIECES, 14, init="median")


def test_padded_rows_are_used_first():
    # The old tokenizer had 9 tokens, the old model 11 rows: ids 9 and 10 were padding.
    old, grown = model(True), grow_rows(model(True), {9: [0, 1], 11: [2]}, 12)
    assert torch.equal(grown.head[[*range(9), 10]], old.head[[*range(9), 10]])
    assert torch.equal(grown.head[9], old.head[:2].mean(0))


def test_a_dropped_tokens_row_is_given_away_and_still_counts_as_a_piece():
    # Ids 3 and 4 were dropped: 3 becomes a token of pieces 1 and 4, 4 one of piece 3, as they were.
    old, grown = model(False), grow_rows(model(False), {3: [1, 4], 4: [3]}, 11)
    for before, after in [
        (old.head, grown.head),
        (old.model.embed_tokens.weight, grown.model.embed_tokens.weight),
    ]:
        assert torch.equal(after[3], before[[1, 4]].mean(0)) and torch.equal(after[4], before[3])
        kept = [0, 1, 2, *range(5, 11)]
        assert torch.equal(after[kept], before[kept])


def test_covariance_draws_stand_about_the_mean_row_with_the_covariance_of_the_old_rows():
    old = model(False).head.detach()
    old.mul_(torch.linspace(1, 50, 16))  # columns of unlike spread
    lm = model(False)
    lm.lm_head.weight.data.copy_(old)
    drawn = (grow_rows(lm, {}, 11 + 4000, init="covariance").head[11:] - old.mean(0)) / 1e-9**0.5
    assert drawn.mean(0).abs().max() < 0.1 * old.std(0).max()
    torch.testing.assert_close(
        torch.cov(drawn.T), torch.cov(old.T), rtol=0.2, atol=0.1 * old.var(0).max().item()
    )


def test_normal_draws_are_those_of_a_fresh_model():
    drawn = grow_rows(model(False), {}, 11 + 4000, init="normal").head[11:]
    assert abs(drawn.mean()) < 1e-3 and abs(drawn.std() - 0.02) < 1e-3


def test_the_table_is_padded_to_a_multiple_and_never_shrinks():
    assert rows_for(32_011, 32_064) == 32_064  # phi-3: the padding that is there is used
    assert rows_for(64_001, 32_064, 64) == 64_064
    assert rows_for(11, 11) == 11


def test_the_nearest_token_shares_most_bytes():
    old = {
        0: b"ba",
        1: "กา".encode(),
        2: "กาง".encode(),
        3: "ขา".encode(),
        4: b"\x00",
        5: "กา".encode(),
    }
    found = nearest(old, {9: "กางเกง".encode(), 10: "กา".encode(), 11: b"zz", 12: b"bat"})
    assert found == {9: [2], 10: [1], 11: [], 12: [0]}, (
        "equals go to the lower id, strangers to none"
    )


@pytest.mark.parametrize(
    "pieces, size", [({20: [1]}, 14), ({11: [11]}, 14), ({11: [-1]}, 14), ({}, 10)]
)
def test_what_cannot_be(pieces, size):
    with pytest.raises(DataError):
        grow_rows(model(True), pieces, size)


def test_fallback(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.Gemma3TextConfig(
        vocab_size=11, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, pad_token_id=None,
    )  # fmt: skip
    transformers.Gemma3ForCausalLM(config).save_pretrained(tmp_path / "a")
    old, grown = load(tmp_path / "a"), grow_rows(load(tmp_path / "a"), PIECES, 14)
    assert torch.equal(grown.head[:11], old.head) and torch.equal(grown.head[12], old.head[5])
    save(grown, tmp_path / "b")
    assert torch.equal(load(tmp_path / "b").head, grown.head)
