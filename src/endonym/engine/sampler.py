"""The next token out of logits, with the exact probability with which it was drawn.

Shapes: B rows, V vocabulary.
"""

import torch
from torch import Tensor

from endonym.core.config import Config


class Sampling(Config):
    """How the next token is drawn. The filters are applied in this order, each to what the one
    before has left: temperature, top_k, top_p, min_p (transformers' order)."""

    temperature: float = 1.0
    """0: always the most probable token."""
    top_k: int = 0
    """Only the k most probable tokens; 0: all."""
    top_p: float = 1.0
    """Only the most probable tokens whose probabilities first reach p together."""
    min_p: float = 0.0
    """Only tokens at least min_p times as probable as the most probable one."""
    max_tokens: int = 64
    seed: int = 0


def draw(logits: Tensor, sampling: Sampling, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [B], their log-probabilities [B] in the distribution drawn from, and those at
    temperature 1 without truncation, out of logits [B, V] and one uniform number [B] each.

        token = min { i : sum_{j <= i} p_j > u }         p: after temperature and truncation

    The first kind is what an off-policy ratio needs, the second what a model's likelihood is. Greedy
    decoding draws with probability 1, so its first kind is 0.
    """
    logits = logits.float()
    whole = torch.softmax(logits, 1)
    if sampling.temperature == 0:
        best, tokens = logits.max(1)
        return tokens, torch.zeros_like(best), whole.gather(1, tokens[:, None]).squeeze(1).log()
    # log sum_v exp z_v by the most probable token, whose p is never too small for a logarithm. On a
    # CPU torch.logsumexp takes ten times as long.
    raw = logits.amax(1) - whole.amax(1).log()
    scaled = logits if sampling.temperature == 1 else logits / sampling.temperature
    names = None
    if sampling.top_k or sampling.top_p < 1:
        # In falling order; `names` says which token stands where.
        count = min(sampling.top_k or scaled.shape[1], scaled.shape[1])
        scaled, names = scaled.topk(count, dim=1)
    p = whole if scaled is logits else torch.softmax(scaled, 1)
    if sampling.top_p < 1:
        before = p.cumsum(1) - p
        p = torch.where(before < sampling.top_p, p, 0)
    if sampling.min_p:
        p = torch.where(p >= sampling.min_p * p.amax(1, keepdim=True), p, 0)
    place = _invert(p, uniform)
    chosen = p.gather(1, place[:, None]).squeeze(1)
    tokens = place if names is None else names.gather(1, place[:, None]).squeeze(1)
    at_one = logits.gather(1, tokens[:, None]).squeeze(1) - raw
    if scaled is logits and not sampling.min_p:
        return tokens, at_one, at_one
    return tokens, chosen.log() - p.sum(1).log(), at_one


def _invert(p: Tensor, uniform: Tensor) -> Tensor:
    """The first place whose cumulative sum exceeds uniform times the whole; p need not sum to 1.

    In float64, where the sum of a whole vocabulary is exact to 1e-13: in float32 the last tokens of
    a large vocabulary would be drawn too often or never.
    """
    cumulative = p.cumsum(1, dtype=torch.float64)
    point = cumulative[:, -1] * uniform
    return torch.searchsorted(cumulative, point[:, None], right=True).squeeze(1)


def uniforms(seed: int, keys: Tensor, positions: Tensor) -> Tensor:
    """Numbers in [0, 1), float64 [B], each a function of (seed, key, position) alone.

    No state is kept, so an item draws the same numbers whatever its batch mates are. The mixing is
    that of SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195), once for each of the
    three. 52 bits are used: then the product with a sum never rounds up to that sum.
    """
    state = torch.full_like(keys, _signed(seed & _ALL))
    for part in (keys, positions):
        state = _mix(state + _signed(0x9E3779B97F4A7C15)) ^ part
    return (_mix(state + _signed(0x9E3779B97F4A7C15)) >> 12 & (1 << 52) - 1).double() * 2.0**-52


_ALL = (1 << 64) - 1


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    # torch's >> on int64 repeats the sign
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >= 1 << 63 else x
