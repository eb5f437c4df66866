"""The rotation, and its frequencies against transformers' own functions."""

import pytest
import torch

from endonym.core.errors import RecipeError
from endonym.model.config import ModelConfig
from endonym.model.hf import new
from endonym.model.rope import frequencies, lengths_in, rotary, rotate

SIZES = dict(
    vocab_size=11, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=2, head_dim=16, max_position_embeddings=256, rope_theta=500.0,
)  # fmt: skip
LONG = dict(short_factor=[1.0 + i / 9 for i in range(8)], long_factor=[2.0 + i for i in range(8)])
SCALINGS = {
    "linear": dict(type="linear", factor=4.0),
    "dynamic": dict(type="dynamic", factor=4.0),
    "yarn": dict(type="yarn", factor=8.0, original_max_position_embeddings=32),
    "yarn, whole settings": dict(
        type="yarn", factor=40.0, original_max_position_embeddings=64, beta_fast=8.0, beta_slow=2.0,
        mscale=0.7, mscale_all_dim=1.3, truncate=False,
    ),
    "yarn, factor left out": dict(type="yarn", original_max_position_embeddings=64),
    "yarn, attention factor": dict(
        type="yarn", factor=2.0, original_max_position_embeddings=64, attention_factor=0.3
    ),
    "llama3": dict(type="llama3", factor=8.0, original_max_position_embeddings=64),
    "longrope": dict(type="longrope", original_max_position_embeddings=64, **LONG),
    "longrope, attention factor": dict(
        type="longrope", original_max_position_embeddings=64, attention_factor=1.5, **LONG
    ),
}  # fmt: skip


def config(scaling=None, **changes):
    return ModelConfig(**{**SIZES, "rope_scaling": scaling, **changes})


def theirs(ours: ModelConfig, length=None):
    """(inv_freq, factor) by transformers."""
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = ours.rope_scaling.model_dump(exclude_none=True)
    kind = scaling.pop("type")
    parameters = {"rope_type": kind, "rope_theta": ours.rope_theta, "factor": None, **scaling}
    if ours.partial_rotary_factor != 1:
        parameters["partial_rotary_factor"] = ours.partial_rotary_factor
    made = transformers.LlamaConfig(
        hidden_size=32, num_attention_heads=2, head_dim=16, max_position_embeddings=256
    )
    made.rope_parameters = parameters
    return ROPE_INIT_FUNCTIONS[kind](made, "cpu", seq_len=length)


@pytest.mark.parametrize("length", [None, 40, 200, 1000])
@pytest.mark.parametrize("kind", SCALINGS)
def test_frequencies_are_those_of_transformers(kind, length):
    ours = config(SCALINGS[kind])
    wanted, factor = theirs(ours, length)
    found, on_angles = frequencies(ours, None if length is None else torch.tensor(length))
    # float32; the base of NTK is taken in float64 here
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
    assert on_angles == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("kind", ["linear", "yarn", "llama3"])
def test_frequencies_of_a_part_of_the_channels(kind):
    ours = config(SCALINGS[kind], partial_rotary_factor=0.5)
    wanted, _ = theirs(ours)
    assert len(wanted) == 4
    torch.testing.assert_close(frequencies(ours)[0], wanted, rtol=1e-6, atol=0)


def test_every_kind_changes_something():
    plain = frequencies(config())[0]
    for kind, scaling in SCALINGS.items():
        found, _ = frequencies(config(scaling), torch.tensor(1000))
        assert not torch.allclose(found, plain), kind


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_rotate(factor):
    positions = torch.tensor([[0, 1, 2, 3], [5, 0, 1, 900]])
    sizes = config(partial_rotary_factor=factor)
    half = sizes.rotary_channels // 2
    cos, sin = rotary(positions, sizes, torch.float32)

    def plain(x):
        # as complex numbers: channel i and i + R/2 are one, turned by p theta^(-2i/R)
        pairs = torch.complex(x[..., :half], x[..., half : 2 * half])
        angle = positions[..., None, None] / 500.0 ** (torch.arange(half) / half)
        turned = pairs * torch.polar(torch.ones_like(angle), angle)
        return torch.cat([turned.real, turned.imag, x[..., 2 * half :]], -1)

    x = numbers(2, 4, 3, 16)
    a, b = rotate(x, cos, sin), plain(x)
    weight = numbers(*a.shape, seed=9).detach()
    # the angle 900 is good to 6e-5 in float32
    torch.testing.assert_close(a, b, rtol=0, atol=2e-4)
    one, two = (torch.autograd.grad((each * weight).sum(), x)[0] for each in (a, b))
    torch.testing.assert_close(one, two, rtol=0, atol=2e-4)


def test_the_factor_is_on_values_and_gradients():
    yarn = config(SCALINGS["yarn"])
    cos, sin = rotary(torch.arange(5)[None], yarn, torch.float32)
    factor = frequencies(yarn)[1]
    x = numbers(1, 5, 2, 16)
    out = rotate(x, cos, sin)
    assert factor != 1
    torch.testing.assert_close(out.norm(), factor * x.norm())
    (grad,) = torch.autograd.grad(out.square().sum() / 2, x)
    torch.testing.assert_close(grad, factor**2 * x.detach())


def test_lengths_are_those_of_the_documents():
    segments = torch.tensor([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1]])
    positions = torch.tensor([[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 4, 5]])
    found = lengths_in(positions, segments)
    assert found[0, :5].tolist() == [3, 3, 3, 2, 2] and found[1].tolist() == [6] * 6
    assert lengths_in(positions, None).tolist() == [[3] * 6, [6] * 6]


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
@torch.no_grad()
def test_a_long_neighbour_changes_no_short_text(kind):
    scaling = dict(SCALINGS[kind], original_max_position_embeddings=8)
    lm = new(config(scaling, max_position_embeddings=8), 0)
    ids = torch.arange(24).view(1, 24) % 11
    alone = lm(ids[:, :6])
    packed = lm(ids, segments=torch.tensor([[1] * 6 + [2] * 18]))
    torch.testing.assert_close(packed[:, :6], alone, rtol=0, atol=2e-6)
    assert not torch.allclose(lm(ids)[:, :6], alone, atol=1e-4), "a long text is turned otherwise"


@pytest.mark.parametrize("kind", SCALINGS)
@torch.no_grad()
def test_cached_is_full(kind):
    # Those that look at the length: keys are turned for the cache's room, so it is the text's length.
    lm = new(config(SCALINGS[kind], max_position_embeddings=16), 0)
    ids = torch.arange(80).view(1, 80) ** 2 % 11
    full, cache = lm(ids), lm.new_cache(1, 80)
    torch.testing.assert_close(lm(ids[:, :70], cache=cache), full[:, :70], rtol=0, atol=5e-6)
    for at in range(70, 80):
        out = lm(ids[:, at : at + 1], cache=cache)
        torch.testing.assert_close(out[:, 0], full[:, at], rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(rope_scaling={"type": "yarn", "factor": 2.0}), "original_max_position_embeddings"),
        (dict(rope_scaling={"type": "linear"}), "factor, which linear needs"),
        (
            dict(rope_scaling={**SCALINGS["longrope"], "long_factor": [1.0]}),
            "with 8 factors, not 1",
        ),
        (dict(rope_scaling={"type": "ntk"}), "'linear', 'dynamic'"),
        (dict(partial_rotary_factor=0.2), "even number of channels"),
        (dict(rope_layers="sliding"), "no positions"),
    ],
)
def test_settings_that_do_not_fit(changes, message):
    with pytest.raises(RecipeError, match=message):
        ModelConfig.read({**SIZES, **changes}, "recipe.toml: architecture")
