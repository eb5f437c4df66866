"""The optimizer of a run over a model's parameters; and their gradients, averaged and clipped.

    m <- b1 m + (1 - b1) g      v <- b2 v + (1 - b2) g^2
    w <- w - lr (  m^ / (sqrt(v^) + eps)  +  decay w )          arXiv:1711.05101, algorithm 2
    m^, v^: m, v with the bias of their zero start taken out

The decay is decoupled and multiplied by the rate, as in torch. It is put on matrices that multiply
activations. Norms and biases (fewer than two dimensions) and embeddings get none: their rows are
touched only when their token appears, and a rare word should not fade between two sightings. A tied
head is the embedding and gets none either. No paper of ours says which parameters it decays.

    adamw       the above for every parameter, fused
    adamw8bit   the same with m and v in eight bits, block by block (arXiv:2110.02861), by torchao
    muon        train/muon.py for the hidden matrices, the above for everything else
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from endonym.core.errors import MachineError, RecipeError
from endonym.train.config import TrainConfig
from endonym.train.eight_bit import AdamW8bit
from endonym.train.muon import Muon, hidden_matrices
from endonym.train.precision import BF16_WIDTH, precision_of


class Optimizers:
    """Several torch optimizers over different parameters as one: groups, state, step, zero_grad."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]):
        self._parts = list(parts)
        self.state: dict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        for part in self._parts:
            part.state = self.state

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self._parts for group in part.param_groups]

    def step(self) -> None:
        for part in self._parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self._parts:
            part.zero_grad(set_to_none)


Optimizer = torch.optim.Optimizer | Optimizers | AdamW8bit


def build(model: nn.Module, config: TrainConfig, offload: bool = False) -> Optimizer:
    """The optimizer that `config` names over the parameters that learn.

    Each group has the rate at which it steps next, `lr`, and its share of the schedule's rate,
    `rate_share`. `state` has tensors only, by parameter; eight_bit.to_tensors() takes those of eight
    bits apart.

    offload: weights, gradients and state stay in the CPU's memory while a GPU computes. What moves
    them is FSDP2's CPUOffloadPolicy (train/parallel.py), not torchao's CPUOffloadOptimizer: that one
    sends each gradient away during the backward pass, before it can be averaged and clipped, and
    keeps its state where no checkpoint finds it. Here it is only made sure of.
    """
    if offload:
        _refuse_without_offload(model)
    groups = parameter_groups(model, config.weight_decay)
    if config.optimizer == "muon":
        return _muon(model, groups, config)
    return _adam(groups, config)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups, with and without decay, of the parameters that learn; in the model's own order."""
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.dtype != torch.float32:
            raise RecipeError(
                "training needs float32 master weights",
                where=name,
                wanted="torch.float32",
                got=parameter.dtype,
                do="load the model with dtype float32; precision = 'bfloat16' concerns the products",
            )
        keeps = parameter.ndim < 2 or id(parameter) in embeddings
        (plain if keeps else decayed).append(parameter)
    if not decayed and not plain:
        raise RecipeError("the model has no parameter that learns", do="unfreeze some")
    groups = [
        {"params": decayed, "weight_decay": weight_decay, "rate_share": 1.0},
        {"params": plain, "weight_decay": 0.0, "rate_share": 1.0},
    ]
    return [group for group in groups if group["params"]]


def _adam(groups: list[dict], config: TrainConfig) -> Optimizer:
    settings = {"lr": config.learning_rate, "betas": config.betas, "eps": config.eps}
    if config.optimizer == "adamw8bit":
        return AdamW8bit(groups, **settings)
    # Fused: at 3M parameters 6 ms a step on one core, where the plain loop takes 40.
    return torch.optim.AdamW(groups, **settings, fused=True)


def _muon(model: nn.Module, groups: list[dict], config: TrainConfig) -> Optimizers:
    hidden = hidden_matrices(model)
    if not hidden:
        raise RecipeError(
            "there is no hidden matrix for Muon",
            where="optimizer",
            wanted="linear layers or stacks of experts that learn",
            do='set optimizer = "adamw"',
        )
    ids = {id(parameter) for parameter, _ in hidden}
    rest = [
        {**group, "params": [each for each in group["params"] if id(each) not in ids]}
        for group in groups
    ]
    rest = [group for group in rest if group["params"]]
    muon = Muon(
        hidden,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        dtype=precision_of("auto", hidden[0][0].device, BF16_WIDTH),
        **config.muon.model_dump(),
    )
    return Optimizers([muon, *([_adam(rest, config)] if rest else [])])


def _refuse_without_offload(model: nn.Module) -> None:
    if not torch.cuda.is_available():
        raise MachineError(
            "there is no GPU from which an optimizer could be taken off",
            where="offload",
            do="leave offload out: on a CPU everything is in its memory",
        )
    away = [name for name, each in model.named_parameters() if each.device.type != "cpu"]
    assert not away, f"offload is asked for, and {away[0]} is on the GPU: shard the model first"


def mean_and_clip(parameters: list[Tensor], weight: float, limit: float) -> float:
    """Turns gradients of a weighted sum into those of the weighted mean, clipped; the mean's norm before.

        g <- g / weight,   n = |g|,   g <- g * min(1, limit / (n + 1e-6))

    The global 2-norm; arXiv:1211.5063, algorithm 1, the 1e-6 is torch's. limit 0: no clipping. Both
    factors are applied in one pass. Where n is not finite the gradients are left as they are.

    Sharded gradients (DTensor) count whole, whichever mesh they lie on, and those that every rank
    holds alike count once: the norm is the same on all ranks, which must all call this.
    """
    alike = defaultdict(list)
    for parameter in parameters:
        grad = parameter.grad
        if grad is not None:
            sharded = isinstance(grad, DTensor)
            alike[(grad.device_mesh, grad.placements) if sharded else None].append(grad)
    if not alike:
        return 0.0
    norms = [_norm(gradients) for gradients in alike.values()]
    norm = (norms[0] if len(norms) == 1 else math.hypot(*norms)) / weight
    if math.isfinite(norm):
        share = min(1.0, limit / (norm + 1e-6)) if limit > 0 else 1.0
        for gradients in alike.values():
            torch._foreach_mul_(gradients, share / weight)
    return norm


def _norm(gradients: list[Tensor]) -> float:
    norm = nn.utils.get_total_norm(gradients)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
