"""The next token out of logits, with the exact probability with which it was drawn.

Shapes: B rows, V vocabulary.
"""

import numpy as np
import torch
import torch.nn.functional as F
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


def draw(
    logits: Tensor, sampling: Sampling, uniform: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [B], their log-probabilities [B] in the distribution drawn from, and those at
    temperature 1 without truncation, out of logits [B, V] and one uniform number [B] each.

        token = min { i : sum_{j <= i} p_j > u }         p: after temperature and truncation

    The first kind is what an off-policy ratio needs, the second what a model's likelihood is. Greedy
    decoding draws with probability 1, so its first kind is 0.

    Nothing is sorted but the candidates: a filter keeps the tokens whose probability reaches a bound
    (all that do, where several are equal), and the bound is found among the largest few.
    """
    rows = max(1, _BLOCK // logits.shape[1])
    if logits.device.type == "cpu" and rows < len(logits):
        logits = logits.split(rows)
        numbers = [None] * len(logits) if uniform is None else uniform.split(rows)
        drawn = [_draw(part, sampling, u) for part, u in zip(logits, numbers, strict=True)]
        return tuple(torch.cat(each) for each in zip(*drawn))
    return _draw(logits, sampling, uniform)


_BLOCK = 1 << 18
"""Logits at a time on a CPU: what is computed of them stays in the processor's own cache, and is small
enough for the memory to be used again rather than asked for anew at every token."""


def _draw(
    logits: Tensor, sampling: Sampling, uniform: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    logits = logits.float()
    if sampling.temperature == 0:
        tokens = _place_of_most(logits)
        top = logits.gather(1, tokens[:, None])
        raw = -(logits - top).exp_().sum(1).log()
        return tokens, torch.zeros_like(raw), raw
    top = logits.amax(1, keepdim=True)
    weight = (logits - top).exp_()  # p times the sum of this; the most probable token's is 1
    whole = weight.sum(1)
    raw = top.squeeze(1) + whole.log()  # log sum_v exp z_v
    if sampling.temperature != 1:
        weight = (logits - top).div_(sampling.temperature).exp_()
        whole = weight.sum(1)
    bound = _bound(weight, whole, sampling)
    if bound is not None:
        # In units of the bound: to compare with one number for all rows takes a fraction of the time.
        weight = F.threshold(weight.div_(bound), _BELOW_ONE, 0.0)
    spans = _Spans(weight)
    tokens = spans.search(spans.whole * uniform)
    at_one = logits.gather(1, tokens[:, None]).squeeze(1) - raw
    if sampling.temperature == 1 and bound is None:
        return tokens, at_one, at_one
    chosen = weight.gather(1, tokens[:, None]).squeeze(1)
    return tokens, chosen.log() - spans.whole.log().float(), at_one


_BELOW_ONE = 1 - 2.0**-24
"""The largest float32 below 1."""

_SMALL = 2.0**-126
"""The smallest float32 with all its bits: a bound, where a filter would keep tokens of probability 0."""

_FEW = 1024
"""So many of the largest are looked at first. A trained model's nucleus is smaller nearly always."""


def _bound(weight: Tensor, whole: Tensor, sampling: Sampling) -> Tensor | None:
    """[B, 1]: the weight from which on a token is kept, None where all are, of weight [B, V] with sum
    `whole` [B] and largest 1."""
    bounds = []
    if 0 < sampling.top_k < weight.shape[1]:
        kept = _largest(weight, sampling.top_k)
        bounds.append(kept[:, 0])
        if sampling.top_p < 1:
            bounds.append(_nucleus(kept, sampling.top_p * kept.sum(1))[0])
    elif sampling.top_p < 1:
        bounds.append(_nucleus_of_all(weight, sampling.top_p * whole))
    if sampling.min_p:
        bounds.append(torch.full_like(whole, sampling.min_p))
    return torch.stack(bounds).amax(0).clamp(min=_SMALL)[:, None] if bounds else None


def _nucleus_of_all(weight: Tensor, mass: Tensor) -> Tensor:
    """_nucleus() of weight [B, V] in any order."""
    size = weight.shape[1]
    # No weight is above 1, so the largest few can only reach a mass that is no more than their number.
    few = _FEW if bool((mass <= _FEW).all()) else size
    bound, reached = _nucleus(_largest(weight, min(few, size)), mass)
    if few < size and not bool(reached.all()):
        rest = (~reached).nonzero().squeeze(1)
        bound[rest] = _nucleus(_largest(weight[rest], size), mass[rest])[0]
    return bound


def _nucleus(rising: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """[B]: the weight, of those in rising order, with which the sum of the largest first reaches mass
    [B]; and whether any does."""
    spans = _Spans(rising)
    left = spans.whole - mass
    place = spans.search(left.clamp(min=0))
    return rising.gather(1, place[:, None]).squeeze(1), left >= 0


def _largest(x: Tensor, count: int) -> Tensor:
    """The `count` largest of each row, in rising order.

    On a CPU by numpy, whose sorting uses its vector instructions: of 32 rows of 16,384 the largest
    1,024 take 1 ms, where torch.topk takes 7, and all of them 2 ms, where torch.sort takes 40.
    """
    if x.device.type != "cpu":
        return x.topk(count, 1).values.flip(1)
    values = x.numpy()
    if count < x.shape[1]:
        values = np.partition(values, x.shape[1] - count, 1)[:, x.shape[1] - count :]
    return torch.from_numpy(np.sort(values, 1))


_SPAN = 512
"""Numbers that are searched together: where something lies is found among spans, then within one."""


def _spans(x: Tensor, blank: float) -> Tensor:
    """[B, N, 512] of x [B, V]; what is missing from the last span is blank."""
    missing = -x.shape[1] % _SPAN
    x = F.pad(x, (0, missing), value=blank) if missing else x
    return x.unflatten(1, (-1, _SPAN))


def _place_of_most(x: Tensor) -> Tensor:
    """Where the largest of each row stands, the first if there are several. torch.max takes six times
    as long on a CPU: it keeps the places as it goes, number by number."""
    spans = _spans(x, float("-inf"))
    span = spans.amax(2).argmax(1)
    within = spans[torch.arange(len(x), device=x.device), span]
    return span * _SPAN + within.argmax(1)


class _Spans:
    """Running sums of numbers [B, V], none of them negative.

    In float64, where the sum of a whole vocabulary is exact to 1e-13: in float32 the last tokens of
    a large vocabulary would be drawn too often or never. Within a span the sum that counts is the
    float32 one, so a span's share is that near to right.

    whole: [B] float64
    """

    def __init__(self, x: Tensor):
        self.size = x.shape[1]
        self.spans = _spans(x, 0.0)
        self.sums = self.spans.sum(2).double()
        self.total = self.sums.cumsum(1)
        self.whole = self.total[:, -1]

    def search(self, point: Tensor) -> Tensor:
        """[B]: the first place at which the sum so far exceeds point [B], which is less than the whole."""
        span = torch.searchsorted(self.total, point[:, None], right=True)
        span = span.clamp_(max=self.sums.shape[1] - 1)
        share = self.sums.gather(1, span)
        share = (point[:, None] - self.total.gather(1, span) + share) / share
        within = self.spans[torch.arange(len(span), device=span.device), span[:, 0]]
        within = within.cumsum(1, dtype=torch.float64)
        point = within[:, -1:] * share.clamp_(0, 1 - 2.0**-52)
        place = span * _SPAN + torch.searchsorted(within, point, right=True)
        return place.squeeze(1).clamp_(max=self.size - 1)  # beyond it only where there is a nan


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
