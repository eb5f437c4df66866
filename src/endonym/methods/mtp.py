"""Multi-token prediction: the next token, and with a small weight the ones after it.

Shapes: B rows, T time, D width, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from endonym.methods.batch import Loss
from endonym.methods.nll import nll


def mtp(
    hidden: Tensor,
    ahead: Sequence[Tensor],
    head: Tensor,
    labels: Tensor,
    weights: Tensor,
    segments: Tensor,
    weight: float = 0.05,
    cap: float | None = None,
) -> Loss:
    """The loss of the next token and, by `weight`, of those that n further modules predict.

        L = L_NTP + w/n sum_k L_k,   L_k = 1/T sum_t -log p_k(x_{t+1+k} | x_1 .. x_{t+k})

    DeepSeek-V3, arXiv:2412.19437, eq. 24 and 25; K-EXAONE has one module and w = 0.05. As in eq. 24,
    L_k is divided by the weight of all positions, not only of those that have a target, so that the
    step does not depend on how its rows were split.

    hidden [B, T, D] predicts labels [B, T]; ahead[k - 1], shaped alike, predicts the label k places
    further on (model: Decoder.ahead). A target keeps the weight that it has in the main loss, and is
    left out where it belongs to another document: in the last 1 + k positions of each. With weight 0
    the modules are not touched, and the loss is nll's.

    Figures: ntp and mtp, means over the positions of each.
    """
    loss = nll(hidden, head, labels, weights, cap=cap)
    if not weight or not ahead:
        return loss
    value, means = loss.value, []
    for number, states in enumerate(ahead, 1):
        targets, theirs = further(labels, weights, segments, number)
        part = nll(states, head, targets, theirs, cap=cap)
        value = value + weight / len(ahead) * part.value
        means.append(_mean(part))
    figures = {"ntp": _mean(loss), "mtp": sum(means) / len(means)}
    return Loss(value, loss.weight, figures)


def further(labels: Tensor, weights: Tensor, segments: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Labels and weights [B, T] of the predictions `by` places further on; weight 0 where they would
    cross into another document or past the row's end."""
    weights = torch.where(segments.roll(-by, 1) == segments, weights.roll(-by, 1), 0)
    weights[:, -by:] = 0
    return labels.roll(-by, 1), weights


def _mean(loss: Loss) -> float:
    weight = float(loss.weight)
    return float(loss.value.detach()) / weight if weight else 0.0
