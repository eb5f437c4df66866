"""Several tensors in, one out: the equations of merging, piece by piece.

A merge of two models of 70B parameters has to fit a laptop, so nothing here holds a tensor whole
unless the equation asks for an order statistic of it (TIES). A tensor comes as an Operand, which can
be gone through more than once; what comes out is an iterator of flat pieces.

All sums are taken in the type that the operand's pieces come in: float32, or float64 if asked for.
theta_0 is the base, theta_i the models, tau_i = theta_i - theta_0 their task vectors.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

PIECE = 1 << 17
"""Elements of a piece: half a megabyte of float32, which all steps of an equation find in the cache.
(Twice and half of that are as fast; eight times takes twice as long.)"""

NEARLY_PARALLEL = 0.9995
"""|cos| above which slerp goes along the straight line (Shoemake's own remedy; mergekit's bound)."""


class Operand(Protocol):
    """A tensor that can be gone through."""

    elements: int

    def pieces(self) -> Iterator[Tensor]:
        """Flat pieces of PIECE elements (the last may be shorter), in the type to compute in."""


def linear(
    operands: Sequence[Operand], weights: Sequence[float], normalise: bool = True
) -> Iterator[Tensor]:
    """The weighted sum, or mean.

        theta = sum_i w_i theta_i  [ / sum_i w_i ]

    Model soups, Wortsman et al., arXiv:2203.05482, section 2 (uniform weights there).
    """
    total = _total(weights)
    for parts in zip(*(each.pieces() for each in operands), strict=True):
        scaled = [_like(w, parts[0]) for w in weights]
        out = parts[0] * scaled[0]
        for part, w in zip(parts[1:], scaled[1:], strict=True):
            out.addcmul_(part, w)
        yield out.div_(_like(total, out)) if normalise else out


def slerp(a: Operand, b: Operand, t: float) -> Iterator[Tensor]:
    """Along the great circle from a (t = 0) to b (t = 1), the tensor taken as one vector.

        theta = sin((1-t) w)/sin w * a + sin(t w)/sin w * b,   cos w = <a, b> / (|a| |b|)

    Shoemake 1985, section 3.3. The lengths are those of a and b themselves, so that the length runs
    from the one to the other. Where a and b are (anti)parallel: (1-t) a + t b. A vector of length zero
    has no direction; like mergekit we take it as perpendicular to every other.
    """
    dot = aa = bb = 0.0
    for x, y in zip(a.pieces(), b.pieces(), strict=True):
        dot, aa, bb = dot + float(x @ y), aa + float(x @ x), bb + float(y @ y)
    cos = dot / math.sqrt(aa * bb) if aa > 1e-16 and bb > 1e-16 else 0.0
    if abs(cos) > NEARLY_PARALLEL:
        left, right = 1 - t, t
    else:
        angle = math.acos(cos)
        left, right = (math.sin(s * angle) / math.sin(angle) for s in (1 - t, t))
    for x, y in zip(a.pieces(), b.pieces(), strict=True):
        yield (x * left).add_(y, alpha=right)


@dataclass(frozen=True)
class Sparse:
    """Which entries of a task vector are kept.

    how: "magnitude" keeps the max(1, floor(density * n)) largest, equals in their order (TIES, section
    3.1, trim); "random" keeps each with probability `density` (DARE, arXiv:2311.03099, section 3).
    rescale: what the kept ones are multiplied by, so that the vector keeps its size.
        "density"  1 / density, which keeps the expectation (DARE, eq. 2)
        "norm"     |tau|_1 / |kept|_1, which keeps the L1 norm; mergekit's `rescale: true`
    """

    how: Literal["magnitude", "random"]
    rescale: Literal["density", "norm"] | None = None


def task_arithmetic(
    base: Operand,
    operands: Sequence[Operand],
    weights: Sequence[float],
    *,
    scale: float = 1.0,
    normalise: bool = False,
    sparse: Sparse | None = None,
    densities: Sequence[float] = (),
    elect: bool = False,
    seeds: Sequence[Sequence[int]] = (),
) -> Iterator[Tensor]:
    """The base and what the models learnt on top of it.

        theta = theta_0 + scale * sum_i w_i m_i k_i tau_i  [ / sum_i w_i m_i ]

    Ilharco et al., arXiv:2212.04089, section 2 (k = m = 1, nothing divided).
    k_i, `sparse`: which entries are kept and by what they are multiplied, with densities[i].
    m_i, `elect`: 1 where w_i k_i tau_i has the sign of sum_j w_j k_j tau_j (plus, if that is 0), else 0.
    TIES, Yadav et al., arXiv:2306.01708, section 3.1, is trim (k), elect, and the mean over those that
    agree (normalise); DARE is a random k. Without `elect` the divisor is sum_i w_i.

    seeds: for each model the words that its random choice follows from; the choice depends on the
    seed and the position alone, not on how the tensor is cut into pieces.
    """
    keeps = [
        _keeper(sparse, base, each, density, seed)
        for each, density, seed in zip(
            operands,
            densities or [1.0] * len(operands),
            seeds or [(0,)] * len(operands),
            strict=True,
        )
    ]
    total = _total(weights)
    for start, *parts in zip(base.pieces(), *(each.pieces() for each in operands), strict=True):
        deltas = [
            keep(part - start).mul_(w) for part, w, keep in zip(parts, weights, keeps, strict=True)
        ]
        if elect:
            mixed, divisor = _agreeing(deltas, weights)
        else:
            mixed, divisor = deltas[0], total
            for each in deltas[1:]:
                mixed += each
        if normalise:
            mixed /= divisor
        yield mixed.mul_(scale).add_(start)


def _agreeing(deltas: Sequence[Tensor], weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Sum of the entries that have the elected sign, and of the weights of those models."""
    # Comparisons in place write 1 and 0 in the type of the numbers; masks of bool take twice as long.
    sign = deltas[0].clone()
    for each in deltas[1:]:
        sign += each
    sign.ge_(0).mul_(2).sub_(1)
    mixed, divisor = torch.zeros_like(sign), torch.zeros_like(sign)
    for each, w in zip(deltas, weights, strict=True):
        agrees = (each * sign).gt_(0)
        mixed.addcmul_(each, agrees)
        divisor.add_(agrees, alpha=w)
    return mixed, divisor.add_(divisor.clone().eq_(0))


class _All:
    """Every entry."""

    def __call__(self, delta: Tensor) -> Tensor:
        return delta


class _None:
    """No entry."""

    def __call__(self, delta: Tensor) -> Tensor:
        return delta.zero_()


class _Largest:
    """Entries from a magnitude on; if not all of that very magnitude are wanted, the first `equals`."""

    def __init__(self, bound: float, equals: int | None, factor: float):
        self.bound, self.equals, self.factor = bound, equals, factor

    def __call__(self, delta: Tensor) -> Tensor:
        size = delta.abs()
        if self.equals is None:
            keep = size.ge_(self.bound)
        else:
            equal = size.eq(self.bound)
            equal &= equal.cumsum(0) <= self.equals
            self.equals -= int(equal.sum())
            keep = size.gt_(self.bound).add_(equal)
        return delta.mul_(keep) if self.factor == 1 else delta.mul_(keep).mul_(self.factor)


class _Drawn:
    """Entries drawn by a stream of uniform numbers, one a position."""

    def __init__(self, density: float, seed: Sequence[int], factor: float = 1.0):
        self.density, self.factor = density, factor
        self.stream = np.random.Generator(np.random.PCG64(list(seed)))

    def __call__(self, delta: Tensor) -> Tensor:
        drawn = torch.from_numpy(self.stream.random(len(delta), dtype=np.float32))
        out = delta.mul_(drawn.lt_(self.density))
        return out if self.factor == 1 else out.mul_(self.factor)


def _keeper(
    sparse: Sparse | None, base: Operand, operand: Operand, density: float, seed: Sequence[int]
):
    if sparse is None or density >= 1:
        return _All()
    if density <= 0 or not operand.elements:
        return _None()
    if sparse.how == "magnitude":
        return _largest(base, operand, density, sparse.rescale)
    if sparse.rescale != "norm":
        return _Drawn(density, seed, 1 / density if sparse.rescale else 1.0)
    whole = kept = 0.0
    draw = _Drawn(density, seed)
    for start, part in zip(base.pieces(), operand.pieces(), strict=True):
        delta = part - start
        whole += float(delta.abs().sum(dtype=torch.float64))
        kept += float(draw(delta).abs().sum(dtype=torch.float64))
    return _Drawn(density, seed, _ratio(whole, kept))


def _largest(base: Operand, operand: Operand, density: float, rescale: str | None) -> _Largest:
    """The bound from the magnitudes of the whole vector: the one place that holds a tensor."""
    sizes, at = None, 0
    for start, part in zip(base.pieces(), operand.pieces(), strict=True):
        if sizes is None:
            sizes = torch.empty(operand.elements, dtype=part.dtype)
        torch.sub(part, start, out=sizes[at : at + len(part)]).abs_()
        at += len(part)
    whole = _sum(sizes) if rescale == "norm" else 0.0
    count = max(1, int(density * len(sizes)))
    first = len(sizes) - count
    values = sizes.numpy()
    values.partition(first)  # numpy's selection is vectorised: 90 times an argsort in torch
    kept = sizes[first:]
    bound = float(kept[0])
    factor = {
        "norm": lambda: _ratio(whole, _sum(kept)),
        "density": lambda: 1 / density,
        None: lambda: 1.0,
    }[rescale]()
    equals = count - sum(int(np.count_nonzero(each.numpy() > bound)) for each in kept.split(PIECE))
    left = any(bool((each.numpy() == bound).any()) for each in sizes[:first].split(PIECE))
    return _Largest(bound, equals if left else None, factor)


def _sum(values: Tensor) -> float:
    """Piece by piece: a sum in another type is taken of a copy in that type."""
    return sum(float(each.sum(dtype=torch.float64)) for each in values.split(PIECE))


def _ratio(whole: float, kept: float) -> float:
    """By how much the kept entries grow; not at all where there is next to nothing to compare."""
    return whole / kept if whole >= 1e-7 and kept >= 1e-7 else 1.0


def _total(weights: Sequence[float]) -> float:
    total = float(torch.tensor(weights, dtype=torch.float32).sum())
    return total if abs(total) >= 1e-8 else 1.0


def _like(value: float, tensor: Tensor) -> Tensor:
    return torch.tensor(value, dtype=tensor.dtype)
