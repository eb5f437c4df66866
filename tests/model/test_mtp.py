"""MTP modules: what they see, that they learn x_{t+2}, and that they leave the model alone."""

import pytest
import torch

from endonym.methods.mtp import mtp
from endonym.methods.nll import nll
from endonym.model.config import ModelConfig
from endonym.model.hf import new

SIZES = dict(
    vocab_size=13, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, mtp_modules=1,
)  # fmt: skip
EXACT = dict(rtol=0, atol=2e-6)


def model(**changes):
    return new(ModelConfig(**{**SIZES, **changes}), 0)


def tokens(rows=2, time=12):
    return torch.randint(13, (rows, time), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_the_equation():
    lm, ids = model(), tokens()
    hidden = lm(ids)
    (found,) = lm.ahead(hidden, ids)
    module = lm.mtp[0]
    embedded = lm.model.embed_tokens(ids)[:, 1:]
    both = torch.cat([module.norm_embedding(embedded), module.norm_hidden(hidden[:, :-1])], -1)
    where = lm.where(ids[:, :-1], None, None, None, hidden.dtype)
    wanted = module.norm(module.block(both @ module.project.weight.T, where))
    torch.testing.assert_close(found[:, :-1], wanted, **EXACT)


@pytest.mark.parametrize("modules", [1, 2])
@torch.no_grad()
def test_a_module_sees_the_next_token_and_no_further(modules):
    lm, ids = model(mtp_modules=modules), tokens(1)
    other = ids.clone()
    other[0, 6] = (other[0, 6] + 1) % 13
    for number in range(modules):
        one, two = (lm.ahead(lm(each), each)[number] for each in (ids, other))
        changed = (one != two).any(-1)[0, : 12 - number].nonzero()[:, 0].tolist()
        assert changed[0] == 6 - 1 - number


@pytest.mark.parametrize("kind", [{}, dict(norm_after=True), dict(mtp_modules=2)])
@torch.no_grad()
def test_packed_is_apart(kind):
    lm, ids = model(**kind), tokens()
    segments = torch.tensor([[1] * 7 + [2] * 5, [1] * 9 + [0] * 3])
    packed = lm.ahead(lm(ids, segments=segments), ids, segments=segments)
    for row, start, end in ((0, 0, 7), (0, 7, 12), (1, 0, 9)):
        alone = ids[row, start:end][None]
        for number, found in enumerate(lm.ahead(lm(alone), alone)):
            last = end - start - 1 - number
            torch.testing.assert_close(
                packed[number][row, start : start + last], found[0, :last], **EXACT
            )


def test_weight_zero_leaves_the_model_its_gradients():
    lm, ids = model(), tokens()
    ones, weights = torch.ones_like(ids), torch.ones(ids.shape)
    hidden = lm(ids)
    mtp(hidden, lm.ahead(hidden, ids), lm.head, ids, weights, ones, weight=0).value.backward()
    with_modules = {name: each.grad for name, each in lm.named_parameters()}
    assert all((grad is None) == name.startswith("mtp.") for name, grad in with_modules.items())
    lm.zero_grad()
    nll(lm(ids), lm.head, ids, weights).value.backward()
    for name, each in lm.named_parameters():
        if not name.startswith("mtp."):
            assert torch.equal(each.grad, with_modules[name]), name


def test_it_learns_the_token_after_next():
    # i, i + 1, ... modulo 13, of which the second differs by a step: 1 or 2; t alone cannot tell x_{t+2}
    lm = model(hidden_size=48)
    optimizer = torch.optim.AdamW(lm.parameters(), lr=3e-3)
    start, step = torch.arange(13).repeat(2)[:, None], torch.arange(1, 3).repeat_interleave(13)
    ids = (start + step[:, None] * torch.arange(9)) % 13
    rows, labels = ids[:, :-1], ids[:, 1:]
    ones, weights = torch.ones_like(rows), torch.ones(rows.shape)
    for _ in range(60):
        hidden = lm(rows)
        loss = mtp(hidden, lm.ahead(hidden, rows), lm.head, labels, weights, ones, weight=1.0)
        optimizer.zero_grad()
        (loss.value / loss.weight).backward()
        optimizer.step()
    hidden = lm(rows)
    guess = lm.logits(lm.ahead(hidden, rows)[0]).argmax(-1)
    assert (guess[:, :-1] == ids[:, 2:]).float().mean() > 0.95


def test_weights_are_counted_and_kept():
    lm = model()
    names = {name.split(".", 2)[2] for name in lm.state_dict() if name.startswith("mtp.0.")}
    assert {"norm_embedding.weight", "norm_hidden.weight", "project.weight", "norm.weight"} < names
    assert "block.self_attn.q_proj.weight" in names and "block.mlp.down_proj.weight" in names
    plain = model(mtp_modules=0)
    assert not hasattr(plain, "mtp") and plain.ahead(plain(tokens()), tokens()) == []
    # without its modules the model is the same, drawn from the same numbers or not
    assert set(plain.state_dict()) == {n for n in lm.state_dict() if not n.startswith("mtp.")}
    # K-EXAONE: dense block and no experts in it, seeing everything, without positions
    moe = dict(experts=dict(count=4, chosen=2, width=16, first_dense=1))
    windows = dict(
        sliding_window=4, layer_types=["sliding_attention", "full_attention"], rope_layers="sliding"
    )
    block = model(**moe, **windows).mtp[0].block
    assert block.self_attn.window is None and not block.self_attn.rope
    assert block.mlp.up_proj.out_features == 48
