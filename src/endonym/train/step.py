"""One optimizer step: forward and backward of its parts, the sums over all ranks, the update.

    g = (sum_b d value_b / d theta) / (sum_b weight_b)      then clip, then the optimizer

Value, weight, tokens and figures of all parts go to the host together, once a step.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from endonym.methods.batch import Rows
from endonym.train import optim
from endonym.train.health import Fault, Health
from endonym.train.seed import seed_for
from endonym.train.trainee import Trainee

FIGURE = "figure "


@dataclass(frozen=True)
class Outcome:
    """What came of a step. learned: its update was taken; if not, it had a fault or no weight at all."""

    learning_rate: float
    tokens: int
    loss: float | None = None
    grad_norm: float | None = None
    figures: dict[str, float] = field(default_factory=dict)
    fault: Fault | None = None
    learned: bool = False

    @property
    def skipped(self) -> str | None:
        """Why nothing was learned."""
        if self.learned:
            return None
        return "no weight" if self.fault is None else self.fault.reason

    def record(self, step: int, tokens: int) -> dict[str, Any]:
        """A line of metrics.jsonl. Steps count from 0, as in loader.rows; tokens: of all steps so far."""
        record = {
            "step": step,
            "loss": self.loss,
            "grad_norm": self.grad_norm,
            "learning_rate": self.learning_rate,
            "tokens": tokens,
            **{name: each for name, each in self.figures.items() if math.isfinite(each)},
        }
        return record | ({"skipped": self.skipped} if self.skipped else {})


def learn(trainee: Trainee, health: Health, parts: list[Rows], data: int, rate: float) -> Outcome:
    """One step on the rows of the loader's step `data`, at this learning rate."""
    config, optimizer = trainee.config, trainee.optimizer
    rank = trainee.ranks.rank
    torch.manual_seed(seed_for(config.seed, f"{data}/{rank}" if rank else data))
    optimizer.zero_grad(set_to_none=True)
    sums = _backward(trainee, parts)
    names = sorted(sums)
    totals = trainee.ranks.sum(torch.stack([sums[name] for name in names])).tolist()
    found = dict(zip(names, totals, strict=True))
    outcome = Outcome(rate, int(found["tokens"]))
    if found["weight"] == 0:
        return outcome
    means = {name: each / found["weight"] for name, each in found.items()}
    loss = means["value"]
    fault = health.judged(loss)
    if fault is not None and not fault.is_spike:
        return replace(outcome, fault=fault)
    parameters = [each for each in trainee.model.parameters() if each.grad is not None]
    norm = optim.mean_and_clip(parameters, found["weight"], config.clip)
    of_norm = health.judged(loss, norm)
    if fault is None or (of_norm is not None and not of_norm.is_spike):
        fault = of_norm  # a gradient that is not finite weighs more than a loss that leapt
    outcome = replace(
        outcome,
        loss=loss,
        grad_norm=norm if math.isfinite(norm) else None,
        figures={n.removeprefix(FIGURE): x for n, x in means.items() if n.startswith(FIGURE)},
        fault=fault,
    )
    if fault is not None and not (fault.is_spike and config.on_spike == "note"):
        return outcome
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_share"]
    optimizer.step()
    if trainee.ema is not None:
        trainee.ema.update(trainee.model)
    health.taken(loss, norm, fault)
    return replace(outcome, learned=True)


def _backward(trainee: Trainee, parts: list[Rows]) -> dict[str, Tensor]:
    """Gradients of the summed losses; and the sums, float64 on the device."""

    def number(value: Tensor | float) -> Tensor:
        value = value.detach() if isinstance(value, Tensor) else value
        return torch.as_tensor(value, dtype=torch.float64, device=trainee.device)

    # Ranks that share their rows between them (context parallel) have the same tokens.
    tokens = sum(part.num_tokens for part in parts) if trainee.ranks.slice[0] == 0 else 0
    sums = {"tokens": number(tokens), "value": number(0.0), "weight": number(0.0)}
    for part in parts:
        with trainee.cast():
            loss = trainee.stepping(part.to(trainee.device))
        if loss.value.requires_grad:
            loss.value.backward()
        weight = number(loss.weight)
        sums["value"] = sums["value"] + number(loss.value)
        sums["weight"] = sums["weight"] + weight
        for name, figure in loss.figures.items():
            sums[FIGURE + name] = sums.get(FIGURE + name, 0.0) + figure * weight
    return sums
