"""A prepared step against the decoder's own forward pass with the same cache."""

import pytest
import torch

from endonym.model.config import ModelConfig
from endonym.model.decode import PlainStep, PreparedStep, step_of
from endonym.model.hf import new

SIZES = dict(
    vocab_size=23, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4
)
# fmt: off
KINDS = {
    "grouped": dict(num_key_value_heads=2),
    "every head its own": dict(num_key_value_heads=4),
    "one for all": dict(num_key_value_heads=1),
    "normed q and k": dict(num_key_value_heads=2, qk_norm=True),
    "biases": dict(num_key_value_heads=2, attention_bias=True, mlp_bias=True),
    "head apart, wide heads": dict(
        num_key_value_heads=2, tie_word_embeddings=False, head_dim=16, rope_theta=500.0
    ),
    "norms after": dict(num_key_value_heads=2, norm_after=True),
    "norms around, HyperCLOVA X": dict(
        num_key_value_heads=2, norm_after=True, norm_before=True, embedding_multiplier=3.0,
        residual_multiplier=0.3, attention_multiplier=0.2, logits_scaling=0.4,
    ),
    "biases of q, k and v alone": dict(num_key_value_heads=2, qkv_bias=True),
    "a part of the channels turned": dict(num_key_value_heads=2, partial_rotary_factor=0.5),
    "soft cap": dict(num_key_value_heads=2, final_logit_softcapping=2.0),
    "window, no positions elsewhere": dict(
        num_key_value_heads=2, sliding_window=4, rope_layers="sliding",
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "skips": dict(num_key_value_heads=2, skips=[(1, -1), (2, 0)], skip_alpha=0.7),
    "experts": dict(
        num_key_value_heads=2,
        experts=dict(count=4, chosen=2, width=24, shared=1, router="sigmoid", first_dense=1),
    ),
    "yarn": dict(
        num_key_value_heads=2, rope_scaling=dict(
            type="yarn", factor=4.0, original_max_position_embeddings=8
        ),
    ),
    "dynamic": dict(
        num_key_value_heads=2, max_position_embeddings=8,
        rope_scaling=dict(type="dynamic", factor=2.0),
    ),
}

# fmt: on


def model(**changes):
    """Weights of size 1, norms and biases too: an error in any of them shows."""
    made = new(ModelConfig(**{**SIZES, **changes}), 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() > 1:
                weight.mul_(6)
            else:
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)
    return made


def pairs_of_steps(lm, rows, steps=5, step=None):
    """(hidden, logits) by the step and by the decoder, after prompts of unequal length."""
    ids = torch.randint(23, (rows, 20), generator=torch.Generator().manual_seed(2))
    lengths = torch.tensor([4, 9, 6][:rows])
    real = (torch.arange(9) < lengths[:, None]).long()
    step = step or PreparedStep(lm, rows, 20)
    caches = [lm.new_cache(rows, 20) for _ in range(2)]
    for cache in caches:
        lm(ids[:, :9], segments=real, cache=cache)
    for number in range(steps):
        tokens = ids[torch.arange(rows), lengths + number]
        ours, plain = step(tokens, caches[0]), lm(tokens[:, None], cache=caches[1])[:, 0]
        assert caches[0].lengths.equal(caches[1].lengths)
        assert caches[0].longest == caches[1].longest == int(lengths.max()) + 1 + number
        yield (ours, step.logits(ours)), (plain, lm.logits(plain))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_prepared_is_the_forward_pass(kind, rows):
    # float32, values of size 1: the same sums in another order
    for ours, plain in pairs_of_steps(model(**KINDS[kind]), rows):
        for one, other in zip(ours, plain):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 3])
@torch.no_grad()
def test_in_bfloat16_and_under_autocast(rows):
    # bfloat16 keeps 8 bits: 2e-2 of the whole, over three layers
    def close(found):
        for ours, plain in found:
            for one, other in zip(ours, plain):
                assert one.dtype == other.dtype == torch.bfloat16
                difference = (one.float() - other.float()).norm() / other.float().norm()
                assert difference < 2e-2

    lm = model(**KINDS["biases"])
    with torch.autocast("cpu", torch.bfloat16):
        close(pairs_of_steps(lm, rows))
    close(pairs_of_steps(lm.to(torch.bfloat16), rows))


@torch.no_grad()
def test_a_batch_that_shrinks_keeps_its_step():
    lm = model(**KINDS["grouped"])
    step, ids = PreparedStep(lm, 3, 20), torch.arange(18).view(3, 6) % 23
    cache, full = lm.new_cache(3, 20), lm(ids)
    lm(ids[:, :4], cache=cache)
    cache.keep(torch.tensor([2, 1]))
    out = step(ids[[2, 1], 4], cache)
    torch.testing.assert_close(out, full[[2, 1], 4], rtol=1e-5, atol=1e-5)
    cache.keep(torch.tensor([0]))
    torch.testing.assert_close(step(ids[[2], 5], cache), full[[2], 5], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_which_step_a_model_gets():
    lm = model(**KINDS["grouped"])
    assert isinstance(step_of(lm, 2, 8), PreparedStep)
    assert isinstance(step_of(torch.nn.Module.to(lm, "meta"), 2, 8), PlainStep)


@torch.no_grad()
def test_one_row_copies_no_weight():
    lm = model(**KINDS["grouped"])
    step = PreparedStep(lm, 1, 8)
    own = {each.data_ptr() for each in lm.parameters()}
    matrices = [step.head, *(layer.qkv for layer in step.layers)]
    assert all(weight.data_ptr() in own for each in matrices for weight, _ in each.parts)


@torch.no_grad()
def test_more_than_fits_is_refused():
    lm = model(**KINDS["grouped"])
    cache, step = lm.new_cache(1, 4), PreparedStep(lm, 1, 4)
    lm(torch.zeros(1, 4, dtype=torch.long), cache=cache)
    with pytest.raises(AssertionError, match="5 tokens in a cache of 4"):
        step(torch.zeros(1, dtype=torch.long), cache)
