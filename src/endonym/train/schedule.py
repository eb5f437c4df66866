"""Learning rates: the share of the highest rate at a step, as pure functions of (step, total).

`step` counts from 0 and runs to total - 1. Every curve begins with the same linear warm-up over W
steps and ends at the share m:

    w(s) = (s + 1) / W                                           s < W
    u(s) = (s - W) / max(1, total - 1 - W)                       progress after it, 0 .. 1

    cosine    m + (1 - m) (1 + cos(pi u)) / 2                    arXiv:1608.03983, without restarts
    linear    m + (1 - m) (1 - u)
    wsd       1, then over the last D steps m + (1 - m) (1 - v)  arXiv:2404.06395, warm-up stable decay
              v(s) = (s - (total - 1 - D)) / D
    constant  1

The first step of a warm-up is 1/W and not 0 (a step at rate 0 would be one step's data for
nothing), and the last step has exactly the share m. MiniCPM lets the last leg of WSD fall
exponentially; it is linear here, one of the two forms arXiv:2405.18392 compares.
"""

import math
from typing import TYPE_CHECKING

from endonym.core.errors import RecipeError

if TYPE_CHECKING:
    from endonym.train.config import TrainConfig


def cosine(step: int, total: int, warmup: int = 0, final: float = 0.0) -> float:
    """Half a cosine from 1 to `final`."""
    if step < warmup:
        return (step + 1) / warmup
    return final + (1 - final) * (1 + math.cos(math.pi * _progress(step, total, warmup))) / 2


def linear(step: int, total: int, warmup: int = 0, final: float = 0.0) -> float:
    """A straight line from 1 to `final`."""
    if step < warmup:
        return (step + 1) / warmup
    return final + (1 - final) * (1 - _progress(step, total, warmup))


def wsd(step: int, total: int, warmup: int = 0, final: float = 0.0, decay: int = 0) -> float:
    """Warm-up, a plateau at 1, a straight line down to `final` over the last `decay` steps."""
    if step < warmup:
        return (step + 1) / warmup
    start = total - 1 - decay
    if step <= start:
        return 1.0
    return final + (1 - final) * (1 - (step - start) / decay)


def constant(step: int, total: int, warmup: int = 0) -> float:
    """1 after the warm-up."""
    return (step + 1) / warmup if step < warmup else 1.0


def length(amount: float, total: int) -> int:
    """Steps that `amount` names: a share of `total` below 1, else a number of steps."""
    return round(amount * total) if amount < 1 else round(amount)


def rate(config: "TrainConfig", step: int) -> float:
    """The learning rate of one step."""
    total, warmup = config.steps, length(config.warmup, config.steps)
    if warmup >= total and total > 1:
        raise RecipeError(
            "the warm-up leaves no step at the full rate",
            where="warmup",
            wanted=f"fewer than {total} steps",
            got=warmup,
            do="lower warmup; below 1 it is a share of the steps",
        )
    if config.schedule == "cosine":
        share = cosine(step, total, warmup, config.final_share)
    elif config.schedule == "linear":
        share = linear(step, total, warmup, config.final_share)
    elif config.schedule == "wsd":
        decay = min(length(config.decay, total), total - 1 - warmup)
        share = wsd(step, total, warmup, config.final_share, max(decay, 0))
    else:
        share = constant(step, total, warmup)
    return config.learning_rate * share


def _progress(step: int, total: int, warmup: int) -> float:
    return (step - warmup) / max(1, total - 1 - warmup)
