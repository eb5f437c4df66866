"""Experts evenly used: auxiliary losses, the update of selection biases, and what to log.

The functions take what a router did in one layer: scores [B, T, N], softmax or sigmoid, and chosen
[B, T, K] (model: collect_routing), and real [B, T], which tokens are no padding (None: all).

Shapes: B rows, T time, N experts, K chosen.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from endonym.methods.batch import Loss


class Routed(Protocol):
    scores: Tensor
    chosen: Tensor


def balance(scores: Tensor, chosen: Tensor, real: Tensor | None = None) -> Tensor:
    """How unevenly all tokens of the batch use the experts: 1 where evenly, at most N / K.

        L = sum_i f_i P_i
        f_i = N/(K T) sum_t 1[i chosen by t],   P_i = 1/T sum_t s_i,t / sum_j s_j,t

    Switch Transformer, arXiv:2101.03961, eq. 4 to 6, for K choices: transformers' value (Mixtral) is
    K times ours. No gradient flows through f. A scalar; multiply it by its coefficient.
    """
    return _balance(scores.flatten(0, 1)[None], chosen.flatten(0, 1)[None], _flat(real))


def balance_by_sequence(
    scores: Tensor, chosen: Tensor, real: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """The same within each sequence, averaged over them, by `weights` [B] where they are given.

    DeepSeek-V3, arXiv:2412.19437, eq. 17 to 20; K-EXAONE and Solar Open: coefficient 1e-4. A sequence
    is a row, as in Megatron, and not a document of it: the reports do not say, and a document of ten
    tokens cannot use 128 experts evenly. Rows without a token do not count.
    """
    return _balance(scores, chosen, real, weights)


def _balance(
    scores: Tensor, chosen: Tensor, real: Tensor | None, weights: Tensor | None = None
) -> Tensor:
    share = scores / scores.sum(-1, keepdim=True)
    used = torch.zeros_like(share).scatter_(-1, chosen, 1.0)
    if real is None:
        real = torch.ones(scores.shape[:2], dtype=torch.bool, device=scores.device)
    mask = real[..., None].to(share.dtype)
    tokens = real.sum(1).to(share.dtype)
    there = tokens.clamp(min=1)[:, None]
    f = (used * mask).sum(1) / there * (scores.shape[-1] / chosen.shape[-1])
    p = (share * mask).sum(1) / there
    count = (tokens > 0).to(share.dtype) if weights is None else weights.to(share.dtype)
    return ((f * p).sum(1) * count).sum() / count.sum().clamp(min=1e-9)


def balanced(
    loss: Loss,
    routes: Sequence[Routed],
    real: Tensor | None = None,
    whole: float = 0.0,
    by_sequence: float = 1e-4,
    weights: Tensor | None = None,
) -> Loss:
    """The loss with the auxiliary ones of all layers added, by their coefficients; and its figures.

        L + sum over layers ( whole L_batch + by_sequence L_sequence )

    In units of the mean loss: what is added is multiplied by loss.weight, by which the loop divides.

    weights [B]: of each row in loss.weight, which they sum up to. L_sequence is then their mean by it,
    and a step does not depend on how its rows were split; that of the batch cannot but do so.
    """
    value = loss.value
    for scores, chosen in ((route.scores, route.chosen) for route in routes):
        if whole:
            value = value + whole * balance(scores, chosen, real) * loss.weight
        if by_sequence:
            part = balance_by_sequence(scores, chosen, real, weights)
            value = value + by_sequence * part * loss.weight
    return Loss(value, loss.weight, {**loss.figures, **figures(routes, real)})


@torch.no_grad()
def update_bias(bias: Tensor, load: Tensor, rate: float) -> None:
    """b_i <- b_i + u sign( mean load - load_i ), in place; once a step, with the load of all of it.

    Loss-free balancing, arXiv:2408.15664, algorithm 1. u: K-EXAONE 1e-4, Solar Open and DeepSeek-V3
    1e-3.
    """
    load = load.to(bias.dtype)
    bias.add_(torch.sign(load.mean() - load), alpha=rate)


@torch.no_grad()
def load(chosen: Tensor, count: int, real: Tensor | None = None) -> Tensor:
    """[N] int64: how many tokens each of `count` experts got."""
    taken = chosen if real is None else chosen[real]
    return torch.bincount(taken.flatten(), minlength=count)


def entropy(load: Tensor) -> float:
    """Of the load's distribution, in parts of its largest: 1 where evenly used, 0 where one has all."""
    share = load.double() / load.sum().clamp(min=1)
    return float(torch.special.entr(share).sum()) / math.log(len(load)) if len(load) > 1 else 1.0


def dead(load: Tensor) -> int:
    """Experts that got no token."""
    return int((load == 0).sum())


@torch.no_grad()
def figures(routes: Sequence[Routed], real: Tensor | None = None) -> dict[str, float]:
    """load_entropy and dead_experts (means over the layers), load_max (of the worst layer: its largest
    load over its mean one)."""
    loads = [load(route.chosen, route.scores.shape[-1], real) for route in routes]
    if not loads:
        return {}
    return {
        "load_entropy": sum(entropy(each) for each in loads) / len(loads),
        "dead_experts": sum(dead(each) for each in loads) / len(loads),
        "load_max": max(float(each.max() / each.double().mean().clamp(min=1e-9)) for each in loads),
    }


def _flat(real: Tensor | None) -> Tensor | None:
    return None if real is None else real.flatten()[None]
