"""The decoder against itself: packed = apart, cached = full, checkpointed = kept."""

import pytest
import torch

from endonym.core.errors import RecipeError
from endonym.methods.nll import nll
from endonym.model.config import ModelConfig
from endonym.model.decoder import positions_in
from endonym.model.hf import new
from endonym.model.kernels import documents_in

SIZES = dict(
    vocab_size=11, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4
)
SEGMENTS = torch.tensor(
    [
        [1] * 5 + [2] * 7 + [3] * 8,
        [1] * 20,
        [1] * 3 + [2] * 3 + [3] + [4] + [0] * 12,  # documents of one token, padding at the end
        [1] * 4 + [0] * 3 + [2] * 6 + [0] * 7,  # padding between documents
    ]
)
EXACT = dict(rtol=0, atol=2e-6)
"""float32 with values of size 1: the same sums in matrices of another shape."""


def model(seed=0, **changes):
    return new(ModelConfig(**{**SIZES, "num_key_value_heads": 2, **changes}), seed)


def tokens(rows=4, time=20):
    return torch.randint(11, (rows, time), generator=torch.Generator().manual_seed(1))


def documents(ids):
    """(row, its positions, the document alone [1, t])."""
    for row, segment in enumerate(SEGMENTS):
        for number in range(1, int(segment.max()) + 1):
            where = segment == number
            yield row, where, ids[row][where][None]


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("heads", [4, 2, 1])
def test_packed_is_apart(heads, qk_norm):
    lm, ids = model(num_key_value_heads=heads, qk_norm=qk_norm), tokens()
    packed = lm(ids, segments=SEGMENTS)
    for row, where, alone in documents(ids):
        torch.testing.assert_close(packed[row][where], lm(alone)[0], **EXACT)


@pytest.mark.parametrize("short", [0, 192])
def test_packed_loss_and_gradient_are_those_of_the_documents(short, monkeypatch):
    monkeypatch.setattr("endonym.model.kernels.SHORT", short)
    ids = tokens()
    labels, weights = ids.roll(-1, 1), (SEGMENTS > 0).float()
    packed = model()
    loss = nll(packed(ids, segments=SEGMENTS), packed.head, labels, weights)
    loss.value.backward()
    apart, total = model(), 0.0
    for row, where, alone in documents(ids):
        each = nll(apart(alone), apart.head, labels[row][where][None], weights[row][where][None])
        each.value.backward()
        total += each.value.item()
    assert loss.value.item() == pytest.approx(total, rel=1e-6)
    for (name, a), b in zip(packed.named_parameters(), apart.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=2e-5, msg=name)


def test_nothing_flows_between_documents():
    lm, ids = model(), tokens()
    other = ids.clone()
    other[0, :5] = (other[0, :5] + 1) % 11
    before, after = lm(ids, segments=SEGMENTS)[0], lm(other, segments=SEGMENTS)[0]
    assert torch.equal(before[5:], after[5:]) and not torch.equal(before[:5], after[:5])


def test_padding_gives_no_gradient():
    lm, ids = model(), tokens()
    hidden = lm(ids, segments=SEGMENTS)
    (hidden * (SEGMENTS > 0)[..., None]).sum().backward()
    grads = [each.grad.clone() for each in lm.model.parameters()]
    lm.zero_grad()
    other = torch.where(SEGMENTS > 0, ids, (ids + 3) % 11)
    (lm(other, segments=SEGMENTS) * (SEGMENTS > 0)[..., None]).sum().backward()
    for a, b in zip(grads, lm.model.parameters()):
        torch.testing.assert_close(a, b.grad, rtol=1e-5, atol=1e-6)


def test_one_document_a_row_needs_no_taking_apart():
    assert documents_in(torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])) is None
    assert documents_in(torch.tensor([[0, 1, 1, 1]])) is not None
    assert documents_in(torch.tensor([[1, 1, 2, 2]])) is not None


def test_positions_restart_with_every_document():
    found = positions_in(SEGMENTS, SEGMENTS)
    for row, where, alone in documents(tokens()):
        assert found[row][where].tolist() == list(range(alone.shape[1]))


@torch.no_grad()
def test_cached_is_full_on_ragged_prompts():
    lm, ids = model(qk_norm=True), tokens(3)
    full, lengths = lm(ids), torch.tensor([4, 9, 6])
    cache = lm.new_cache(3, 20)
    real = (torch.arange(9) < lengths[:, None]).long()
    read = lm(ids[:, :9], segments=real, cache=cache)
    assert cache.lengths.tolist() == [4, 9, 6]
    for row, length in enumerate(lengths):
        torch.testing.assert_close(read[row, :length], full[row, :length], **EXACT)
    rows = torch.arange(3)
    for step in range(5):
        step_out = lm(ids[rows, lengths + step][:, None], cache=cache)
        torch.testing.assert_close(step_out[:, 0], full[rows, lengths + step], **EXACT)
    several = torch.stack([ids[row, n : n + 3] for row, n in enumerate(lengths + 5)])
    wanted = torch.stack([full[row, n : n + 3] for row, n in enumerate(lengths + 5)])
    torch.testing.assert_close(lm(several, cache=cache), wanted, **EXACT)


@torch.no_grad()
def test_a_row_starts_anew_while_others_go_on():
    lm, ids = model(), tokens(3)
    full = lm(ids)
    cache = lm.new_cache(2, 20)
    lm(ids[:2, :7], cache=cache)
    fresh = lm(ids[2:, :3], cache=cache.start(torch.tensor([1])))
    torch.testing.assert_close(fresh[0], full[2, :3], **EXACT)
    for step in range(4):
        out = lm(torch.stack([ids[0, 7 + step], ids[2, 3 + step]])[:, None], cache=cache)
        torch.testing.assert_close(out[0, 0], full[0, 7 + step], **EXACT)
        torch.testing.assert_close(out[1, 0], full[2, 3 + step], **EXACT)
    cache.keep(torch.tensor([1]))
    torch.testing.assert_close(lm(ids[2:, 7:8], cache=cache)[0, 0], full[2, 7], **EXACT)


@torch.no_grad()
def test_batch_mates_change_the_last_bits_only():
    # Measured on several CPUs: at most 5e-7 at hidden states of size 1.
    lm, ids = model(), tokens(4)
    together = lm(ids)
    for row in range(4):
        torch.testing.assert_close(lm(ids[row : row + 1])[0], together[row], **EXACT)


def test_checkpointing_changes_memory_only():
    ids, grads = tokens(), []
    for flag in (False, True):
        lm = model()
        lm.checkpointing = flag
        loss = nll(lm(ids, segments=SEGMENTS), lm.head, ids, torch.ones(ids.shape))
        loss.value.backward()
        grads.append([each.grad for each in lm.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads))


def test_autocast_is_bfloat16_throughout_and_close():
    # bfloat16 keeps 8 bits: 2e-2 of the float32 result after three layers.
    lm, ids = model(), tokens()
    exact = lm(ids, segments=SEGMENTS)
    with torch.autocast("cpu", torch.bfloat16):
        rough = lm(ids, segments=SEGMENTS)
    assert rough.dtype == torch.bfloat16
    real = SEGMENTS > 0
    assert (rough[real].float() - exact[real]).norm() / exact[real].norm() < 2e-2
    rough.float().sum().backward()
    assert all(each.grad.dtype == torch.float32 for each in lm.model.parameters())


def test_weights_follow_from_the_seed_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = model(seed=3)
    assert torch.equal(state, torch.get_rng_state()), "the global generator was used"
    torch.manual_seed(6)
    two, other = model(seed=3), model(seed=4)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
    assert not torch.equal(one.head, other.head)


def test_initial_scale():
    lm = model(hidden_size=256, intermediate_size=512, num_hidden_layers=2)
    layer = lm.model.layers[1]
    # 65536 draws and more: the estimate of the spread is good to 1 %
    assert layer.self_attn.q_proj.weight.std().item() == pytest.approx(0.02, rel=0.02)
    for onto_residual in (layer.self_attn.o_proj, layer.mlp.down_proj):
        assert onto_residual.weight.std().item() == pytest.approx(0.01, rel=0.02)  # 0.02 / sqrt(4)
    assert (layer.input_layernorm.weight == 1).all()


def test_sizes_left_out_and_sizes_that_do_not_fit():
    assert ModelConfig(**SIZES).num_key_value_heads == 4
    assert ModelConfig(**SIZES).head_dim == 8
    with pytest.raises(RecipeError, match="multiple of num_key_value_heads"):
        ModelConfig.read({**SIZES, "num_key_value_heads": 3}, "recipe.toml: stages.base.model")
    with pytest.raises(RecipeError, match="did you mean 'rope_theta'"):
        ModelConfig.read({**SIZES, "rope_thet": 1.0}, "recipe.toml: stages.base.model")


# DUS skips: x_layer = x + alpha * the output of an earlier layer (METHODS: JAI-1, DUS.v2)

SKIPS = dict(skips=[(2, 0)], skip_alpha=0.7)


def outputs_of(lm, ids):
    """The embedding's and every layer's output, by a loop of its own."""
    where = lm.where(ids, None, None, None, torch.float32)
    skips, outs = dict(lm.config.skips), [lm.model.embed_tokens(ids)]
    for layer, block in enumerate(lm.model.layers):
        x = outs[-1]
        if layer in skips:
            x = x + lm.model.skip_alpha[str(layer)] * outs[skips[layer] + 1]
        outs.append(block(x, where))
    return outs


@pytest.mark.parametrize("skips", [[(2, 0)], [(1, -1), (2, 1)], [(0, -1), (1, 0), (2, 0)]])
def test_a_skip_adds_an_earlier_output(skips):
    lm, ids = model(skips=skips, skip_alpha=0.7), tokens()
    wanted = lm.model.norm(outputs_of(lm, ids)[-1])
    torch.testing.assert_close(lm(ids), wanted, **EXACT)
    assert not torch.allclose(lm(ids), model()(ids), atol=1e-3)


@torch.no_grad()
def test_alpha_zero_is_plain_stacking():
    lm = model(skips=[(2, 0)], skip_alpha=0.0)
    assert torch.equal(lm(tokens()), model()(tokens()))


@torch.no_grad()
def test_layers_that_do_nothing_show_the_skip():
    # x_2 = x + a x, by hand: the layers add nothing, so that the norm sees (1 + a) times the embedding
    lm = model(**SKIPS)
    for block in lm.model.layers:
        block.self_attn.o_proj.weight.zero_()
        block.mlp.down_proj.weight.zero_()
    embedded = lm.model.embed_tokens(tokens())
    torch.testing.assert_close(outputs_of(lm, tokens())[-1], 1.7 * embedded)
    torch.testing.assert_close(lm(tokens()), lm.model.norm(1.7 * embedded), **EXACT)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_gradient_of_alpha_is_that_of_finite_differences(checkpointing):
    lm, ids = model(**SKIPS).double(), tokens()
    lm.checkpointing = checkpointing
    weight = torch.randn(4, 20, 32, generator=torch.Generator().manual_seed(0)).double()
    (lm(ids) * weight).sum().backward()
    alpha, values = lm.model.skip_alpha["2"], []
    for step in (1e-2, -2e-2):
        alpha.data += step
        values.append((lm(ids) * weight).sum().item())
    # a central difference is good to its step squared; the norms count in float32
    # good to the step squared, and to the norms' float32 over the step
    assert alpha.grad.item() == pytest.approx((values[0] - values[1]) / 2e-2, rel=5e-3)


def test_a_fixed_alpha_learns_nothing_and_is_kept():
    lm = model(**SKIPS, skip_learned=False)
    nll(lm(tokens()), lm.head, tokens(), torch.ones(4, 20)).value.backward()
    assert lm.model.skip_alpha["2"].grad is None
    assert lm.state_dict()["model.skip_alpha.2"] == pytest.approx(0.7)
    assert "model.skip_alpha.2" not in model().state_dict()


@torch.no_grad()
def test_skips_with_cache_and_packing_and_autocast():
    lm, ids = model(**SKIPS), tokens()
    packed = lm(ids, segments=SEGMENTS)
    for row, where, alone in documents(ids):
        torch.testing.assert_close(packed[row][where], lm(alone)[0], **EXACT)
    full, cache = lm(ids), lm.new_cache(4, 20)
    lm(ids[:, :9], cache=cache)
    torch.testing.assert_close(lm(ids[:, 9:10], cache=cache)[:, 0], full[:, 9], **EXACT)
    with torch.autocast("cpu", torch.bfloat16):
        assert lm(ids).dtype == torch.bfloat16


# Norms, multipliers and the cap


def test_where_the_norms_stand():
    before, after = "input_layernorm", "post_feedforward_layernorm"
    lm = model()
    assert hasattr(lm.model.layers[0], before) and not hasattr(lm.model.layers[0], after)
    lm = model(norm_after=True)
    assert hasattr(lm.model.layers[0], after) and not hasattr(lm.model.layers[0], before)
    # a norm on an output decides its size, whatever the weights are
    block, ids = lm.model.layers[0], tokens()
    x, where = lm.model.embed_tokens(ids), lm.where(ids, None, None, None, torch.float32)
    with torch.no_grad():
        block.mlp.down_proj.weight.mul_(1e7)  # so that the norm's epsilon is nothing
        one = block(x, where)
        block.mlp.down_proj.weight.mul_(1000)
        torch.testing.assert_close(block(x, where), one, rtol=0, atol=1e-3)
    lm = model(norm_after=True, norm_before=True)
    assert hasattr(lm.model.layers[0], before) and hasattr(lm.model.layers[0], after)
    with pytest.raises(RecipeError, match="norms before attention and MLP, after them, or both"):
        ModelConfig.read({**SIZES, "norm_before": False}, "recipe.toml: stages.base.model")


@pytest.mark.parametrize("kind", [dict(norm_after=True), dict(norm_after=True, norm_before=True)])
def test_packed_is_apart_with_norms_elsewhere(kind):
    lm, ids = model(**kind), tokens()
    packed = lm(ids, segments=SEGMENTS)
    for row, where, alone in documents(ids):
        torch.testing.assert_close(packed[row][where], lm(alone)[0], **EXACT)


@torch.no_grad()
def test_multipliers_by_hand():
    ids, plain = tokens(), model()
    scaled = model(logits_scaling=0.25)
    torch.testing.assert_close(scaled(ids) * 4, plain(ids))
    assert torch.equal(
        scaled.logits(scaled(ids)), torch.nn.functional.linear(scaled(ids), scaled.head)
    )
    # Llama with sqrt(D) on the embedding, as Gemma: the same as larger weights in the table
    embedded = model(embedding_multiplier=3.0)
    plain.model.embed_tokens.weight.mul_(3)
    torch.testing.assert_close(embedded(ids), plain(ids), **EXACT)
    # 1 / sqrt(C) said by hand, and residuals of half the size by halved projections
    torch.testing.assert_close(model(attention_multiplier=8**-0.5)(ids), model()(ids), **EXACT)
    half, other = model(), model(residual_multiplier=0.5)
    for block in half.model.layers:
        block.self_attn.o_proj.weight.mul_(0.5)
        block.mlp.down_proj.weight.mul_(0.5)
    torch.testing.assert_close(other(ids), half(ids), **EXACT)


@torch.no_grad()
def test_soft_cap():
    lm, ids = model(final_logit_softcapping=0.01), tokens()
    z = lm(ids) @ lm.head.T
    found = lm.logits(lm(ids))
    torch.testing.assert_close(found, 0.01 * torch.tanh(z / 0.01))
    assert found.abs().max() <= 0.01 < z.abs().max() and lm.cap == 0.01 and model().cap is None
    torch.testing.assert_close(lm.logits(lm(ids)[:1, :1]), found[:1, :1])


def test_biases_of_q_k_and_v_alone():
    attention = model(qkv_bias=True).model.layers[0].self_attn
    assert attention.q_proj.bias is not None and attention.o_proj.bias is None
    attention = model(attention_bias=True, qkv_bias=False).model.layers[0].self_attn
    assert attention.v_proj.bias is None and attention.o_proj.bias is not None


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(skips=[(2, 2)]), r"-1 <= source < layer < 3 in the skip \(2, 2\)"),
        (dict(skips=[(3, 0)]), r"in the skip \(3, 0\)"),
        (dict(skips=[(2, 0), (2, 1)]), "at most one skip for each layer"),
        (dict(num_key_value_heads=0), "greater than 0"),
        (dict(final_logit_softcapping=-1.0), "greater than 0"),
        (dict(mtp_modules=-1), "greater than or equal to 0"),
    ],
)
def test_architectures_that_do_not_fit(changes, message):
    with pytest.raises(RecipeError, match=message):
        ModelConfig.read({**SIZES, **changes}, "recipe.toml: stages.base.model")
