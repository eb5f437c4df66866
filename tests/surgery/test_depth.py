"""Depth up-scaling: JAI-1's table 2, and that what should not change does not."""

import pytest
import torch

from endonym.core.errors import RecipeError
from endonym.methods.nll import nll
from endonym.model.config import Experts, ModelConfig
from endonym.model.decoder import Decoder
from endonym.model.hf import new
from endonym.model.presets import preset
from endonym.surgery.depth import deepen, plan_v1, plan_v2

TABLE_2 = [1, 1, 1, 2, 3, 3, 2, 1, 1, 1]
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8, 9, 7, 9, 3]])


def config(**changes):
    return ModelConfig(**{
        "vocab_size": 11, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 6,
        "num_attention_heads": 2, **changes,
    })  # fmt: skip


@pytest.fixture
def base():
    model = new(config(), 0)
    with torch.no_grad():  # so far from the start that no layer is nearly the identity
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8)
    return model.eval()


# --- plans ------------------------------------------------------------------------------------


def test_table_2_of_jai_1():
    sources, skips = plan_v2(40, 4, TABLE_2)
    assert len(sources) == 64
    # The table's rows, counted from 1 as it does; block 9 ends with 36 (it prints "31-36").
    printed = {
        1: (1, 4), 2: (5, 8), 3: (9, 12), 4: (13, 16), 5: (17, 20),
        6: (21, 24), 7: (25, 28), 8: (29, 32), 9: (33, 36), 10: (37, 40),
    }  # fmt: skip
    wanted = [
        layer - 1
        for block, times in enumerate(TABLE_2, 1)
        for _ in range(times)
        for layer in range(printed[block][0], printed[block][1] + 1)
    ]
    assert sources == wanted
    # Every repetition's skip starts where the last copy of the block before it ends.
    assert skips == [(16, 11), (24, 19), (28, 19), (36, 31), (40, 31), (48, 43)]
    for layer, source in skips:
        assert sources[layer] % 4 == 0 and sources[source] == sources[layer] - 1
        assert sources[layer - 1] == sources[layer] + 3, "in place: after its own block"
    jai = preset("jai-1")
    assert (jai.num_hidden_layers, jai.skips) == (64, skips)


def test_the_last_copy_of_the_block_before_counts():
    # Out_{3,(2)} uses Out_{2,(last)}
    sources, skips = plan_v2(3, 1, [1, 3, 2])
    assert sources == [0, 1, 1, 1, 2, 2]
    assert skips == [(2, 0), (3, 0), (5, 3)]
    # Before the first block is the embedding.
    assert plan_v2(2, 1, [2, 1]) == ([0, 0, 1], [(1, -1)])


def test_first_and_last_layers():
    solar = plan_v1(32, 24)
    assert solar == [*range(24), *range(8, 32)]
    assert len(plan_v1(40, 32)) == 64
    assert plan_v1(40, 20) == list(range(40))
    assert plan_v1(5, 3) == [0, 1, 2, 2, 3, 4]


@pytest.mark.parametrize("keep", [19, 41, 0, -1])
def test_keeping_too_few_or_too_many(keep):
    with pytest.raises(RecipeError, match="20 to 40 of 40"):
        plan_v1(40, keep)


@pytest.mark.parametrize(
    "layers, block, copies",
    [
        (40, 4, [1] * 9),
        (40, 4, [1] * 11),
        (41, 4, [1] * 10),
        (4, 2, [1, 0]),
        (4, 0, []),
        (4, 2, []),
    ],
)
def test_copies_that_do_not_fit(layers, block, copies):
    with pytest.raises(RecipeError, match="each block of"):
        plan_v2(layers, block, copies)


# --- weights ----------------------------------------------------------------------------------


def test_one_copy_of_each_is_the_base_itself(base):
    for sources, skips in (plan_v2(6, 2, [1, 1, 1]), (plan_v1(6, 3), [])):
        same = deepen(base, sources, skips)
        assert same.config == base.config.model_copy(update={"skip_alpha": 0.0})
        assert torch.equal(same(TOKENS), base(TOKENS))
        for one, other in zip(same.parameters(), base.parameters(), strict=True):
            assert torch.equal(one, other) and one is not other


@torch.no_grad()
def by_hand(base, sources, skips, alpha):
    """Block after block over the base's own modules."""
    where = base.where(TOKENS, None, None, None, torch.float32)
    x = base.model.embed_tokens(TOKENS)
    outputs, starts = {-1: x}, dict(skips)
    for place, source in enumerate(sources):
        if place in starts:
            x = x + alpha * outputs[starts[place]]
        x = outputs[place] = base.model.layers[source](x, where)
    return base.model.norm(x)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("copies", [[1, 2, 1], [2, 3, 1], [1, 1, 3]])
def test_the_equation(base, alpha, copies):
    sources, skips = plan_v2(6, 2, copies)
    deeper = deepen(base, sources, skips, alpha)
    torch.testing.assert_close(deeper(TOKENS), by_hand(base, sources, skips, alpha))


def test_alpha_0_is_plain_repetition(base):
    sources, skips = plan_v2(6, 2, [1, 2, 1])
    assert torch.equal(deepen(base, sources, skips, 0.0)(TOKENS), deepen(base, sources)(TOKENS))
    assert not torch.allclose(deepen(base, sources, skips, 0.5)(TOKENS), base(TOKENS), atol=1e-2)


@torch.no_grad()
def test_blocks_that_do_nothing_leave_the_sum_of_the_skips():
    model = new(config(num_hidden_layers=3), 0)
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.zero_()
    sources, skips = plan_v2(3, 1, [2, 1, 3])  # x; x (1 + a); then + a x (1 + a), twice
    deeper = deepen(model, sources, skips, 0.5)
    x = model.model.embed_tokens(TOKENS)
    torch.testing.assert_close(deeper(TOKENS), model.model.norm(x * 1.5 * (1 + 2 * 0.5)))


def test_copies_learn_for_themselves(base):
    sources, skips = plan_v2(6, 2, [1, 2, 1])
    deeper = deepen(base, sources, skips, 0.2)
    loss = nll(deeper(TOKENS), deeper.head, TOKENS.roll(-1, 1), torch.ones(2, 8)).value
    loss.backward()
    first, second = (deeper.model.layers[place].mlp.up_proj.weight for place in (2, 4))
    assert torch.equal(first, second) and first.data_ptr() != second.data_ptr()
    assert not torch.allclose(first.grad, second.grad)
    assert all(parameter.grad is None for parameter in base.parameters())


def test_the_gradient_of_alpha(base):
    sources, skips = plan_v2(6, 2, [1, 3, 1])
    deeper = deepen(base, sources, skips, 0.2).double()

    def loss():  # not nll: it rounds to float32
        logits = deeper.logits(deeper(TOKENS))
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), TOKENS.roll(-1, 1).flatten())

    loss().backward()
    for alpha in deeper.model.skip_alpha.values():
        around = []
        for step in (1e-3, -1e-3):
            with torch.no_grad():
                alpha += step
                around.append(loss().item())
                alpha -= step
        assert alpha.grad.item() == pytest.approx((around[0] - around[1]) / 2e-3, rel=2e-3)


def test_a_fixed_alpha_does_not_learn(base):
    sources, skips = plan_v2(6, 2, [1, 2, 1])
    fixed = deepen(base, sources, skips, 0.7, learned=False)
    assert [a.requires_grad for a in fixed.model.skip_alpha.values()] == [False]
    assert [a.item() for a in fixed.model.skip_alpha.values()] == pytest.approx([0.7])
    assert [a.requires_grad for a in deepen(base, sources, skips).model.skip_alpha.values()] == [
        True
    ]


def test_layers_keep_their_kind():
    sliding, full = "sliding_attention", "full_attention"
    mixed = new(
        config(
            num_hidden_layers=4, sliding_window=3, layer_types=[sliding, sliding, sliding, full],
            rope_layers="sliding", qk_norm=True, mtp_modules=1,
            experts=Experts(count=4, chosen=2, width=8, first_dense=1, router="sigmoid"),
        ),
        0,
    ).eval()  # fmt: skip
    with torch.no_grad():
        mixed.model.layers[2].mlp.router.bias.copy_(torch.arange(4.0))
    sources, skips = plan_v2(4, 1, [2, 1, 2, 2])
    deeper = deepen(mixed, sources, skips)
    assert deeper.config.layer_types == [sliding] * 5 + [full] * 2
    assert deeper.config.experts.first_dense == 2
    assert [deeper.model.layers[i].mlp.router.bias.sum().item() for i in (2, 3, 4)] == [0, 6, 6]
    assert deeper.mtp[0].project.weight.equal(mixed.mtp[0].project.weight)
    assert deeper(TOKENS).isfinite().all()
    assert torch.equal(deepen(mixed, range(4))(TOKENS), mixed(TOKENS))
    with pytest.raises(RecipeError, match="dense layer would stand after"):
        deepen(mixed, [0, 1, 0, 1])


def test_types_modes_and_frozen_parts_are_kept(base):
    base.to(torch.bfloat16).model.embed_tokens.weight.requires_grad_(False)
    base.model.layers[1].self_attn.q_proj.weight.requires_grad_(False)
    base.family = "mistral"
    deeper = deepen(base, [0, 1, 1, 2], [(2, 0)], 0.5)
    assert deeper.family == "mistral"
    assert {p.dtype for p in deeper.parameters()} == {torch.bfloat16} and not deeper.training
    frozen = {name for name, p in deeper.named_parameters() if not p.requires_grad}
    assert frozen == {
        "model.embed_tokens.weight",
        *(f"model.layers.{place}.self_attn.q_proj.weight" for place in (1, 2)),
    }


def test_cached_decoding_of_a_deeper_model(base):
    sources, skips = plan_v2(6, 2, [1, 2, 1])
    deeper = deepen(base, sources, skips, 0.3)
    whole = deeper(TOKENS)
    cache, steps = deeper.new_cache(2, 8), []
    with torch.no_grad():
        for at in range(8):
            steps.append(deeper(TOKENS[:, at : at + 1], cache=cache))
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=0, atol=2e-5)


def test_what_cannot_be(base):
    with pytest.raises(RecipeError, match="not there"):
        deepen(base, [0, 6])
    with pytest.raises(RecipeError, match="without layers"):
        deepen(base, [])
    with pytest.raises(RecipeError, match="source < layer"):
        deepen(base, [0, 1], [(1, 1)])
    with pytest.raises(RecipeError, match="skips already"):
        deepen(deepen(base, [0, 0, 1], [(1, -1)]), [0, 1, 2])
    assert isinstance(base, Decoder)
