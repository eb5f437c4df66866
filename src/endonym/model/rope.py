"""Rotary positions, and the ways to stretch them over longer texts than those of pre-training.

RoFormer, arXiv:2104.09864, eq. 15: the pair i of a head's R rotated channels turns by the angle

    p w_i,   w_i = theta^(-2i/R),   i = 0 .. R/2 - 1

for position p, with the two coordinates of the pair at channels i and i + R/2, as Llama checkpoints
have them. Channels from R on are left alone.

Shapes: B rows, T time, C channels of a head, R rotated ones.
"""

import math

import torch
from torch import Tensor

from endonym.model.config import ModelConfig, RopeScaling


def frequencies(config: ModelConfig, lengths: Tensor | None = None) -> tuple[Tensor, float]:
    """w [R/2] in float32, and the factor on cosine and sine; with `lengths` [...] w may be [..., R/2].

    s: rope_scaling.factor, n: original_max_position_embeddings, t = w n / 2 pi: the turns of a pair
    within the original length.

        linear     w / s                                                            (kaiokendev)
        dynamic    theta (s m / M - s + 1)^(R/(R-2)) for theta, m = max(length, M),
                   M = max_position_embeddings: NTK-aware scaling that grows with the text  (emozilla)
        yarn       w (1 - r) / s + w r, r from 1 at the pair with beta_fast turns to 0 at that with
                   beta_slow, linear in i; factor 0.1 ln s + 1         arXiv:2309.00071, eq. 13 to 15
        llama3     w / s below low_freq_factor turns, w above high_freq_factor turns, linear in t
                   between them                              Llama 3.1's reference code
        longrope   w / d_i, d = short_factor for texts of at most n tokens, else long_factor; factor
                   sqrt(1 + ln s / ln n)                               arXiv:2402.13753

    All are transformers' functions to the last bits (tests/model/test_rope.py). Only dynamic and
    longrope look at `lengths`: the tokens of the text to which a position belongs. Without them they
    are those of a text no longer than M or n.
    """
    channels, scaling = config.rotary_channels, config.rope_scaling
    device = None if lengths is None else lengths.device
    exponent = torch.arange(0, channels, 2, dtype=torch.float32, device=device) / channels
    if scaling is None:
        return 1.0 / config.rope_theta**exponent, 1.0
    if scaling.type == "dynamic":
        base = _ntk_base(config, lengths)
        return 1.0 / base**exponent, 1.0
    if scaling.type == "longrope":
        return _longrope(config, exponent, lengths)
    if scaling.type == "yarn":
        return _yarn(config, exponent)
    plain = 1.0 / config.rope_theta**exponent
    return (plain / scaling.factor if scaling.type == "linear" else _llama3(scaling, plain)), 1.0


def by_length(config: ModelConfig) -> bool:
    """Whether the frequencies depend on the length of a text."""
    return config.rope_scaling is not None and config.rope_scaling.type in ("dynamic", "longrope")


def lengths_in(positions: Tensor, segments: Tensor | None) -> Tensor:
    """[B, T]: for every token the length of its document: of its row, or of the run of its segment.

    By document and not by batch, so that what lies beside a text never changes it.
    """
    rows = torch.arange(len(positions), device=positions.device)[:, None]
    owner = rows.expand_as(positions)
    if segments is not None:
        owner = rows * (int(segments.max()) + 1) + segments
    longest = positions.new_zeros(int(owner.max()) + 1)
    longest.scatter_reduce_(0, owner.flatten(), positions.flatten() + 1, "amax")
    return longest[owner]


def rotary(
    positions: Tensor, config: ModelConfig, dtype: torch.dtype, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """cos and sin, each [B, T, 1, R/2], of the angles of positions [B, T]; angles in float32.

    lengths [B, T]: where by_length(config), the length of each token's text.
    """
    turns, factor = frequencies(config, lengths)
    if lengths is None:
        turns = turns.to(positions.device)
    elif turns.dim() > 1:
        turns = turns[:, :, None]
    angle = positions[:, :, None, None].float() * turns
    cos, sin = angle.cos(), angle.sin()
    if factor != 1.0:
        cos, sin = cos.mul_(factor), sin.mul_(factor)
    return cos.to(dtype), sin.to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair (x_i, x_{i+R/2}) of x [B, T, heads, C] turned by its angle."""
    if 2 * cos.shape[-1] < x.shape[-1]:
        turned, rest = x.split([2 * cos.shape[-1], x.shape[-1] - 2 * cos.shape[-1]], -1)
        return torch.cat([rotate(turned, cos, sin), rest], -1)
    return _Rotate.apply(x, cos, sin) if torch.is_grad_enabled() else _turn(x, cos, sin)


class _Rotate(torch.autograd.Function):
    """The gradient of a rotation is the rotation back: nothing of x needs to be kept."""

    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx, grad):
        cos, sin = ctx.saved_tensors
        return _turn(grad, cos, -sin), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    (a, b), (c, d) = x.chunk(2, -1), out.chunk(2, -1)
    torch.mul(a, cos, out=c).addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=d).addcmul_(a, sin)
    return out


def _ntk_base(config: ModelConfig, lengths: Tensor | None) -> float | Tensor:
    channels, factor = config.rotary_channels, config.rope_scaling.factor
    if lengths is None:
        return config.rope_theta
    trained = config.max_position_embeddings
    stretched = factor * lengths.clamp(min=trained).double() / trained - (factor - 1)
    return (config.rope_theta * stretched ** (channels / (channels - 2))).float()[..., None]


def _llama3(scaling: RopeScaling, plain: Tensor) -> Tensor:
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = scaling.original_max_position_embeddings / (2 * math.pi / plain)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - smooth) * plain / scaling.factor + smooth * plain


def _yarn(config: ModelConfig, exponent: Tensor) -> tuple[Tensor, float]:
    scaling, channels = config.rope_scaling, config.rotary_channels
    original = scaling.original_max_position_embeddings
    factor = scaling.factor or config.max_position_embeddings / original

    def pair(turns: float) -> float:
        """The number of the pair, not whole, that turns so often within the original length."""
        ratio = math.log(original / (turns * 2 * math.pi)) / (2 * math.log(config.rope_theta))
        return channels * ratio

    low, high = pair(scaling.beta_fast), pair(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, channels - 1)
    step = torch.arange(channels // 2, dtype=torch.float32, device=exponent.device)
    kept = 1 - ((step - low) / ((high - low) or 1e-3)).clamp(0, 1)
    slow = config.rope_theta**exponent
    mixed = (1.0 / (factor * slow)) * (1 - kept) + (1.0 / slow) * kept
    return mixed, scaling.attention_factor or _yarn_factor(scaling, factor)


def _yarn_factor(scaling: RopeScaling, factor: float) -> float:
    def scaled(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if scaling.mscale and scaling.mscale_all_dim:  # DeepSeek-V3
        return scaled(scaling.mscale) / scaled(scaling.mscale_all_dim)
    return scaled(1.0)


def _longrope(
    config: ModelConfig, exponent: Tensor, lengths: Tensor | None
) -> tuple[Tensor, float]:
    scaling = config.rope_scaling
    original = scaling.original_max_position_embeddings
    factor = scaling.factor or config.max_position_embeddings / original
    on_angles = scaling.attention_factor
    if on_angles is None:
        on_angles = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    divisors = exponent.new_tensor([scaling.short_factor, scaling.long_factor])
    short, long = 1.0 / (divisors * config.rope_theta**exponent)
    if lengths is None:
        return short, on_angles
    return torch.where((lengths > original)[..., None], long, short), on_angles
