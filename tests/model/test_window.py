"""Sliding windows: what a position sees, and a cache that holds no more than that."""

import pytest
import torch

from endonym.core.errors import RecipeError
from endonym.model.cache import KVCache
from endonym.model.config import ModelConfig
from endonym.model.decode import PreparedStep
from endonym.model.hf import new

WINDOW = 5
SIZES = dict(
    vocab_size=11, hidden_size=32, intermediate_size=48, num_hidden_layers=4,
    num_attention_heads=4, num_key_value_heads=2, sliding_window=WINDOW,
    layer_types=["sliding_attention"] * 3 + ["full_attention"],
)  # fmt: skip
NOPE = dict(rope_layers="sliding", qk_norm=True)
EXACT = dict(rtol=0, atol=4e-6)
"""float32 with values of size 1: the same sums in matrices of another shape."""


def model(**changes):
    lm = new(ModelConfig(**{**SIZES, **changes}), 0)
    with torch.no_grad():
        for weight in lm.parameters():
            if weight.dim() > 1:
                weight.mul_(6)  # attention that is far from even
    return lm


def tokens(rows=3, time=40):
    return torch.randint(11, (rows, time), generator=torch.Generator().manual_seed(1))


def both_steps(lm, rows, capacity):
    """A step by the forward pass, and the prepared one."""
    yield lambda ids, cache: lm(ids[:, None], cache=cache)[:, 0]
    yield PreparedStep(lm, rows, capacity)


@torch.no_grad()
def test_reach():
    # n layers of window W see n (W - 1) + 1 tokens: 13 of three layers of 5
    lm = model(layer_types=["sliding_attention"] * 3, num_hidden_layers=3)
    ids = tokens(1)
    other = ids.clone()
    other[0, 10] = (other[0, 10] + 1) % 11
    changed = (lm(ids) != lm(other)).any(-1)[0].nonzero()[:, 0].tolist()
    assert changed == list(range(10, 10 + 3 * (WINDOW - 1) + 1))


@torch.no_grad()
def test_a_single_layer_sees_its_window():
    lm = model(layer_types=["sliding_attention"], num_hidden_layers=1)
    ids = tokens(1)
    whole = lm(ids)[0]
    for at in (4, 5, 20):
        alone = lm(ids[:, at - WINDOW + 1 : at + 1])[0, -1]
        torch.testing.assert_close(whole[at], alone, **EXACT)


@torch.no_grad()
def test_without_positions_past_order_is_nothing():
    # A single full layer without RoPE sees its past as a set; with RoPE it does not.
    for rope, same in (("sliding", True), ("all", False)):
        lm = model(rope_layers=rope)
        block = lm.model.layers[3].self_attn
        assert block.rope is not same and lm.model.layers[0].self_attn.rope
        x = torch.randn(1, 9, 32, generator=torch.Generator().manual_seed(0))
        shuffled = x[:, [3, 1, 0, 2, 5, 4, 7, 6, 8]]
        where = lm.where(torch.zeros(1, 9, dtype=torch.long), None, None, None, x.dtype)
        one, two = block(x, where)[0, -1], block(shuffled, where)[0, -1]
        assert torch.allclose(one, two, atol=1e-5) == same


@pytest.mark.parametrize("kind", [{}, NOPE])
def test_packed_is_apart_with_gradients(kind):
    segments = torch.tensor([[1] * 17 + [2] * 3 + [3] * 13 + [0] * 7, [1] * 40, [1] * 9 + [0] * 31])
    ids, packed, apart = tokens(), model(**kind), model(**kind)
    hidden = packed(ids, segments=segments)
    weight = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3))
    (hidden * weight * (segments > 0)[..., None]).sum().backward()
    for row, segment in enumerate(segments):
        for number in range(1, int(segment.max()) + 1):
            where = segment == number
            alone = apart(ids[row][where][None])[0]
            torch.testing.assert_close(hidden[row][where], alone, **EXACT)
            (alone * weight[row][where]).sum().backward()
    for (name, a), b in zip(packed.model.named_parameters(), apart.model.parameters()):
        scale = b.grad.abs().max()
        torch.testing.assert_close(a.grad / scale, b.grad / scale, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("prepared", [0, 1])
@pytest.mark.parametrize("lengths", [[4, 9, 6], [2, 30, 12], [1, 5, 3]])
@pytest.mark.parametrize("kind", [{}, NOPE])
@torch.no_grad()
def test_cached_is_full_on_ragged_prompts(kind, lengths, prepared):
    lm, ids, lengths = model(**kind), tokens(), torch.tensor(lengths)
    full, time = lm(ids), int(lengths.max())
    cache, rows = lm.new_cache(3, 40), torch.arange(3)
    step = list(both_steps(lm, 3, 40))[prepared]
    read = lm(ids[:, :time], segments=(torch.arange(time) < lengths[:, None]).long(), cache=cache)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(read[row, :length], full[row, :length], **EXACT)
    for at in range(9):  # past the window, once around the ring
        if at == 6:
            rows = torch.tensor([2, 0])
            cache.keep(rows)
        out = step(ids[rows, lengths[rows] + at], cache)
        torch.testing.assert_close(out, full[rows, lengths[rows] + at], **EXACT)


@pytest.mark.parametrize("counts", [[3, 3], [3, 1], [8, 2], [1, 0]])
@torch.no_grad()
def test_several_tokens_are_read_into_rows_under_way(counts):
    # as a draft is verified; padding must not push what is still in the window out of the ring
    lm, ids = model(), tokens(2)
    full, start, counts = lm(ids), torch.tensor([11, 3]), torch.tensor(counts)
    cache, rows, time = lm.new_cache(2, 40), torch.arange(2), int(counts.max())
    lm(ids[:, :11], segments=(torch.arange(11) < start[:, None]).long(), cache=cache)
    several = torch.stack([ids[row, at : at + time] for row, at in enumerate(start)])
    real = torch.arange(time) < counts[:, None]
    out = lm(several, segments=real.long(), cache=cache)
    for row, (at, count) in enumerate(zip(start, counts)):
        torch.testing.assert_close(out[row, :count], full[row, at : at + count], **EXACT)
    for step in range(7):
        at = start + counts + step
        out = lm(ids[rows, at][:, None], cache=cache)[:, 0]
        torch.testing.assert_close(out, full[rows, at], **EXACT)


@pytest.mark.parametrize("fresh", [3, 12])
@torch.no_grad()
def test_a_row_starts_anew_while_others_go_on(fresh):
    lm, ids = model(**NOPE), tokens(3)
    full = lm(ids)
    cache = lm.new_cache(2, 40)
    lm(ids[:2, :7], cache=cache)
    out = lm(ids[2:, :fresh], cache=cache.start(torch.tensor([1])))
    torch.testing.assert_close(out[0], full[2, :fresh], **EXACT)
    for step in range(8):
        out = lm(torch.stack([ids[0, 7 + step], ids[2, fresh + step]])[:, None], cache=cache)
        torch.testing.assert_close(out[0, 0], full[0, 7 + step], **EXACT)
        torch.testing.assert_close(out[1, 0], full[2, fresh + step], **EXACT)
    cache.keep(torch.tensor([1]))
    out = lm(ids[2:, fresh + 8 : fresh + 9], cache=cache)
    torch.testing.assert_close(out[0, 0], full[2, fresh + 8], **EXACT)


@torch.no_grad()
def test_alone_or_in_a_batch():
    # Measured: the same bits, on 1, 2 and 4 threads; another CPU may choose other kernels.
    lm, ids = model(**NOPE), tokens(3)
    together = lm(ids)
    for row in range(3):
        torch.testing.assert_close(lm(ids[row : row + 1])[0], together[row], **EXACT)


@torch.no_grad()
def test_a_single_padded_row_sees_no_padding():
    lm, ids = model(), tokens(1)
    full, cache = lm(ids), lm.new_cache(1, 40)
    lm(ids[:, :9], segments=(torch.arange(9) < 4).long()[None], cache=cache)
    out = lm(ids[:, 4:5], cache=cache)
    torch.testing.assert_close(out[0, 0], full[0, 4], **EXACT)


def test_sliding_layers_hold_a_window_only():
    cache = model().new_cache(2, 40)
    assert [each.shape[2] for each in cache.keys] == [5, 5, 5, 40]
    assert [each.shape[2] for each in model().new_cache(2, 3).keys] == [3, 3, 3, 3]
    # K-EXAONE at 256K: 12 layers of 262,144 tokens and 36 of 128 against 48 of 262,144
    windows = ([128] * 3 + [None]) * 12
    big = KVCache(windows, 1, 262144, 8, 128, torch.bfloat16, torch.device("meta"))
    slots = sum(each.shape[2] for each in big.keys)
    assert slots / (48 * 262144) == pytest.approx(0.2504, abs=5e-5)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(sliding_window=None), "sliding_window together with"),
        (dict(layer_types=None), "sliding_window together with"),
        (dict(layer_types=["sliding_attention"]), "layer_types for 4 layers, not for 1"),
        (dict(layer_types=["local"] * 4), "'sliding_attention' or 'full_attention'"),
        (dict(sliding_window=0), "greater than 0"),
    ],
)
def test_settings_that_do_not_fit(changes, message):
    with pytest.raises(RecipeError, match=message):
        ModelConfig.read({**SIZES, **changes}, "recipe.toml: architecture")
