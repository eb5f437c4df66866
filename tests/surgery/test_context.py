"""A longer context: JAI-1's and K-EXAONE's, and what the rotation must keep."""

import pytest
import torch

from endonym.core.errors import RecipeError
from endonym.model.config import ModelConfig
from endonym.model.hf import new
from endonym.model.presets import preset
from endonym.model.rope import frequencies
from endonym.surgery.context import extend_context, rebuilt, trained_length

SIZES = {
    "vocab_size": 11, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 4,
    "num_attention_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
PLAIN = ModelConfig(**SIZES)
SLIDING = ModelConfig(**SIZES, sliding_window=8, layer_types=["sliding_attention"] * 4)
HYBRID = ModelConfig(
    **SIZES, sliding_window=8, rope_layers="sliding",
    layer_types=["sliding_attention"] * 3 + ["full_attention"],
)  # fmt: skip
TOKENS = torch.arange(24)[None] % 11


def test_jai_1_from_phi_3():
    long = extend_context(preset("phi-3-medium"), 32_768, theta=1_000_000.0, window="off")
    jai = preset("jai-1")
    for field in (
        "max_position_embeddings", "rope_theta", "rope_scaling", "sliding_window", "layer_types"
    ):  # fmt: skip
        assert getattr(long, field) == getattr(jai, field), field
    changed = {name for name, value in long if value != getattr(preset("phi-3-medium"), name)}
    assert changed == {"max_position_embeddings", "rope_theta", "sliding_window", "layer_types"}


def test_k_exaone_in_two_steps():
    short = preset("k-exaone").model_copy(update={"max_position_embeddings": 8192})
    assert extend_context(extend_context(short, 32_768), 262_144) == preset("k-exaone")


@torch.no_grad()
def test_nopes_and_windows_go_on_as_they_were():
    model = new(HYBRID, 0).eval()
    longer = rebuilt(model, extend_context(HYBRID, 1024))
    assert longer.config.max_position_embeddings == 1024
    assert torch.equal(longer(TOKENS), model(TOKENS))
    assert longer.head.data_ptr() == model.head.data_ptr(), "the weights are not copied"


@torch.no_grad()
def test_without_its_window_a_model_sees_everything():
    model = new(SLIDING, 0).eval()
    longer = rebuilt(model, extend_context(SLIDING, 64, window="off"))
    whole, before = longer(TOKENS), model(TOKENS)
    torch.testing.assert_close(whole[:, :8], before[:, :8])
    assert not torch.allclose(whole[:, 23], before[:, 23], atol=1e-4)
    with pytest.raises(RecipeError, match="would know positions"):
        extend_context(HYBRID, 128, window="off")


def turns(config):
    return frequencies(config)[0].double()


def test_ntk_slows_the_slowest_pair_by_the_factor_and_leaves_the_fastest():
    before, after = turns(PLAIN), turns(extend_context(PLAIN, 256, theta="ntk"))
    assert after[0] == before[0]
    assert (before[-1] / after[-1]).item() == pytest.approx(4, rel=1e-5)


def test_linear_puts_the_new_positions_between_the_old_ones():
    long = extend_context(PLAIN, 256, scaling="linear")
    torch.testing.assert_close(turns(long) * 4, turns(PLAIN))


def test_the_fields_that_follow():
    yarn = extend_context(PLAIN, 512, scaling="yarn")
    assert yarn.max_position_embeddings == 512
    assert yarn.rope_scaling.factor == 8
    assert yarn.rope_scaling.original_max_position_embeddings == 64
    # Llama 3.1: 8k to 128k by a factor of 8
    llama = extend_context(preset("llama-3-8b"), 131_072, scaling={"type": "llama3", "factor": 8.0})
    scaling = llama.rope_scaling
    assert (scaling.factor, scaling.original_max_position_embeddings) == (8, 8192)
    assert (scaling.low_freq_factor, scaling.high_freq_factor) == (1, 4)
    # the dynamic rule stretches from max_position_embeddings on
    dynamic = extend_context(PLAIN, 256, scaling="dynamic")
    assert (dynamic.max_position_embeddings, dynamic.rope_scaling.factor) == (64, 4)
    pairs = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    longrope = extend_context(PLAIN, 256, scaling={"type": "longrope", **pairs})
    assert longrope.rope_scaling.original_max_position_embeddings == 64


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_a_second_extension_starts_from_the_first_original(kind):
    once = extend_context(PLAIN, 256, scaling=kind)
    assert trained_length(once) == 64
    assert extend_context(once, 1024, scaling=kind) == extend_context(PLAIN, 1024, scaling=kind)
    assert extend_context(once, 1024, theta="ntk") == extend_context(PLAIN, 1024, theta="ntk")


def test_what_cannot_be():
    for bad in (
        {"length": 63},
        {"length": 128, "theta": 1e6, "scaling": "yarn"},
        {"length": 128, "scaling": "longrope"},
        {"length": 128, "scaling": "square"},
        {"length": 128, "scaling": {"type": "yarn", "fctor": 2}},
        {"length": 128, "theta": -1.0},
    ):
        with pytest.raises(RecipeError):
            extend_context(PLAIN, **bad)
    with pytest.raises(RecipeError, match="scaled for the length"):
        extend_context(extend_context(PLAIN, 128, scaling="yarn"), 256)
