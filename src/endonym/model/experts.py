"""A mixture of experts in the place of a block's MLP: a router chooses K of N small MLPs a token.

    y = sum_i g_i E_i(x) + E_shared(x),   E(x) = down( silu(gate x) * up x ),   i over the chosen K

Dropless: every token passes all of its experts, however many choose the same one. Tokens are sorted by
expert and each expert sees its own in one product.

Shapes: M tokens, D width, F inner width of an expert, N experts, K chosen, G groups.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from endonym.model.config import Experts


@dataclass(frozen=True)
class Route:
    """What a router did in one layer, for methods/balance.py.

    scores: [B, T, N] float32, softmax or sigmoid, before any choice; gradients flow into the router
    chosen: [B, T, K] the experts of each token
    """

    layer: int
    scores: Tensor
    chosen: Tensor


class Shares(Protocol):
    """Experts that are divided among processes (model/exchange.py)."""

    group: Any

    def travel(self, tokens: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Any]: ...

    def home(self, done: Tensor, journey: Any) -> Tensor: ...


@contextmanager
def collect_routing(model: nn.Module) -> Iterator[list[Route]]:
    """The Routes of all forward passes inside the block, in the order of the layers.

    The backward pass belongs after the block: layers that are computed anew there (checkpointing)
    would report twice.
    """
    layers = [module for module in model.modules() if isinstance(module, MoE)]
    routes: list[Route] = []
    before = [layer.routes for layer in layers]
    for layer in layers:
        layer.routes = routes
    try:
        yield routes
    finally:
        for layer, old in zip(layers, before):
            layer.routes = old


def freeze_routers(model: nn.Module, frozen: bool = True) -> None:
    """Routers learn no more (K-EXAONE's reinforcement learning), or do again; biases included, since
    selection_biases() names those of learning routers alone."""
    for module in model.modules():
        if isinstance(module, Router):
            module.weight.requires_grad_(not frozen)


def selection_biases(model: nn.Module) -> dict[int, Tensor]:
    """The biases [N] by layer, for balance.update_bias, of the sigmoid routers that are not frozen."""
    layers = [(each.layer, each.router) for each in model.modules() if isinstance(each, MoE)]
    return {
        layer: router.bias
        for layer, router in layers
        if router.bias is not None and router.weight.requires_grad
    }


class Router(nn.Module):
    """Scores in float32, whatever the weights and the autocast are, and who is chosen by them."""

    def __init__(self, experts: Experts, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts.count, width))
        self.experts = experts
        bias = torch.zeros(experts.count) if experts.router == "sigmoid" else None
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return route(x, self.weight, self.bias, self.experts)

    def _apply(self, fn, recurse=True):
        # .to(torch.bfloat16) leaves the bias alone: its steps of 1e-4 would be rounded away.
        bias = self.bias
        super()._apply(fn, recurse)
        if bias is not None and self.bias.dtype != bias.dtype:
            self.bias = bias.to(self.bias.device)
        return self


def route(
    x: Tensor, weight: Tensor, bias: Tensor | None, experts: Experts
) -> tuple[Tensor, Tensor, Tensor]:
    """Gates [M, K] float32, chosen [M, K] and scores [M, N] float32 of tokens x [M, D].

        s = softmax(W x)                      chosen: the K largest s       (Mixtral, Qwen3-MoE)
        s = sigmoid(W x)                      chosen: the K largest s + b   (DeepSeek-V3)
        g_i = scaling s_i / sum_j s_j over the chosen, or scaling s_i without `renormalise`

    The bias takes part in the choice alone, so no gradient reaches it. With groups, the K are taken
    from the groups in which the sum of the two largest s + b is largest. DeepSeek-V3,
    arXiv:2412.19437, eq. 12 to 16; the groups are from its reference code.
    """
    with torch.autocast(x.device.type, enabled=False):
        logits = F.linear(x.float(), weight.float())
    if experts.router == "softmax":
        scores = logits.softmax(-1)
        gates, chosen = scores.topk(experts.chosen, -1)
    else:
        scores = logits.sigmoid()
        with torch.no_grad():
            ranked = scores + bias
            if experts.groups > 1:
                ranked = _within_groups(ranked, experts)
            chosen = ranked.topk(experts.chosen, -1).indices
        gates = scores.gather(1, chosen)
    if experts.renormalise:
        gates = gates / (gates.sum(-1, keepdim=True) + 1e-20)
    if experts.scaling != 1:
        gates = gates * experts.scaling
    return gates, chosen, scores


def _within_groups(ranked: Tensor, experts: Experts) -> Tensor:
    grouped = ranked.unflatten(1, (experts.groups, -1))
    best = grouped.topk(2, -1).values.sum(-1).topk(experts.chosen_groups, -1).indices
    outside = torch.ones_like(grouped[..., 0], dtype=torch.bool).scatter_(1, best, False)
    return grouped.masked_fill(outside[..., None], float("-inf")).flatten(1)


class ExpertWeights(nn.Module):
    """All experts' matrices one behind the other: gate over up, and down."""

    def __init__(self, experts: Experts, width: int):
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(experts.count, 2 * experts.width, width))
        self.down = nn.Parameter(torch.empty(experts.count, width, experts.width))


class MoE(nn.Module):
    """Router, experts and, where there is one, the MLP that every token passes."""

    def __init__(self, experts: Experts, width: int, layer: int, shared: nn.Module | None):
        super().__init__()
        self.router = Router(experts, width)
        self.experts = ExpertWeights(experts, width)
        self.shared = shared
        self.layer = layer
        self.routes: list[Route] | None = None
        self.shares: Shares | None = None

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, -2)
        gates, chosen, scores = self.router(tokens)
        if self.routes is not None:
            shape = (*x.shape[:-1], -1)
            self.routes.append(Route(self.layer, scores.view(shape), chosen.view(shape)))
        # autocast reaches no product of three-dimensional weights: they are cast here, once
        gate_up, down = (
            _own(w).to(tokens.dtype) for w in (self.experts.gate_up, self.experts.down)
        )
        out = mix(tokens, gates, chosen, gate_up, down, self.shares).view(x.shape)
        return out if self.shared is None else out + self.shared(x)


def _own(weight: Tensor) -> Tensor:
    """This process's part of a stack of experts that is divided among processes."""
    return weight.to_local() if hasattr(weight, "to_local") else weight


def mix(
    x: Tensor,
    gates: Tensor,
    chosen: Tensor,
    gate_up: Tensor,
    down: Tensor,
    shares: Shares | None = None,
) -> Tensor:
    """sum_i g_i E_i(x) [M, D] over the chosen experts of x [M, D]; weights in x's dtype.

    gates, chosen: [M, K]; gate_up: [N, 2F, D]; down: [N, D, F]. With `shares`, the weights are this
    process's share of the experts, and tokens travel.
    """
    if shares is None and len(x) == 1 and x.device.type == "cpu" and not torch.is_grad_enabled():
        return _one_token(x[0], gates[0], chosen[0], gate_up, down)[None]
    flat = chosen.flatten()
    order = flat.argsort(stable=True)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    inside = _Sorted.apply(x, order // chosen.shape[1], back)
    if shares is None:
        ends = torch.searchsorted(
            flat[order], torch.arange(len(gate_up), device=flat.device), right=True
        )
    else:
        counts = torch.bincount(flat, minlength=len(gate_up) * shares.group.size())
        inside, counts, journey = shares.travel(inside, counts)
        ends = counts.cumsum(0)
    run = _grouped if can_group(x, gate_up) else _split
    with torch.autocast(x.device.type, enabled=False):
        out = run(inside, ends, gate_up, down)
    if shares is not None:
        out = shares.home(out, journey)
    out = _Moved.apply(out, back, order).unflatten(0, chosen.shape)
    return torch.bmm(gates.to(out.dtype)[:, None], out)[:, 0]


def _one_token(x: Tensor, gates: Tensor, chosen: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """The way of generation: matrix-vector products, which read each weight once."""
    out = torch.zeros_like(x)
    for gate, number in zip(gates.tolist(), chosen.tolist()):
        half, up = torch.mv(gate_up[number], x).chunk(2)
        out.addmv_(down[number], F.silu(half).mul_(up), alpha=gate)
    return out


def _split(inside: Tensor, ends: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """Each expert over its run of the sorted tokens [M K, D]."""
    bounds = [0, *ends.tolist()]
    parts = inside.split([end - start for start, end in pairwise(bounds)])
    done = [
        F.linear(_gated(F.linear(part, first)), second)
        for part, first, second in zip(parts, gate_up.unbind(), down.unbind())
        if len(part)
    ]
    return torch.cat(done) if done else inside  # no token came to this process's experts


def _grouped(inside: Tensor, ends: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """The same by two grouped products, without asking the device how long the runs are."""
    ends = ends.to(torch.int32)
    both = torch._grouped_mm(inside, gate_up.transpose(1, 2), offs=ends)
    return torch._grouped_mm(_gated(both), down.transpose(1, 2), offs=ends)


def can_group(x: Tensor, gate_up: Tensor) -> bool:
    """Whether torch._grouped_mm takes these: bfloat16 on an NVIDIA GPU from Ampere on, all rows a
    multiple of 16 bytes."""
    return (
        x.device.type == "cuda"
        and x.dtype == torch.bfloat16
        and hasattr(torch, "_grouped_mm")
        and torch.cuda.get_device_capability(x.device) >= (8, 0)
        and x.shape[1] % 8 == 0
        and gate_up.shape[1] % 16 == 0
    )


def _gated(both: Tensor) -> Tensor:
    gate, up = both.chunk(2, -1)
    return F.silu(gate) * up


class _Sorted(torch.autograd.Function):
    """x[tokens]: each token K times, by expert. The gradient is looked up and summed over K, always in
    the same order, where that of plain indexing would be scattered."""

    @staticmethod
    def forward(ctx, x, tokens, back):
        ctx.save_for_backward(back)
        ctx.num = len(x)
        return x.index_select(0, tokens)

    @staticmethod
    def backward(ctx, grad):
        (back,) = ctx.saved_tensors
        return grad.index_select(0, back).unflatten(0, (ctx.num, -1)).sum(1), None, None


class _Moved(torch.autograd.Function):
    """x[there] for a permutation `there` whose inverse is `back`."""

    @staticmethod
    def forward(ctx, x, there, back):
        ctx.save_for_backward(back)
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx, grad):
        (back,) = ctx.saved_tensors
        return grad.index_select(0, back), None, None
