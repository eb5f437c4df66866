"""The pairwise ranking loss of reward models: the better answer should score higher.

Shapes: P pairs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from endonym.methods.batch import Loss


def bradley_terry(
    chosen: Tensor, rejected: Tensor, margins: Tensor | None = None, centering: float = 0.0
) -> Loss:
    """The sum over pairs of the scores [P] of chosen and rejected answers; its weight is P.

        L = - log sigmoid( r_c - r_r - m ) + c (r_c + r_r)^2

    The model of R. A. Bradley and M. E. Terry (Biometrika 39, 1952): the odds that one answer is
    preferred to the other are exp(r_c - r_r). As a loss for language models: InstructGPT,
    arXiv:2203.02155, eq. 1, which averages over the pairs of one prompt; with data of one pair a
    prompt that is this. margins m [P]: by how much more a clear preference must be told apart
    (Llama 2, arXiv:2307.09288, eq. 2); None: 0. The loss fixes differences alone; centering c pulls
    the scores of each pair about zero (Eisenstein et al., arXiv:2312.09244, eq. 2; TRL's
    center_rewards_coefficient, where 0.01 is recommended).

    Figures, under TRL's names and like TRL's before the margin is taken off: accuracy (chosen above
    rejected; equal scores are no hit), margin, mean_reward, min_reward, max_reward. The loop averages
    figures over micro-batches by weight, so the last two are means of minima and maxima.
    """
    chosen, rejected = chosen.float(), rejected.float()
    if not len(chosen):
        return Loss(chosen.sum() + rejected.sum(), 0.0)
    gap = chosen - rejected
    losses = -F.logsigmoid(gap if margins is None else gap - margins)
    if centering:
        losses = losses + centering * (chosen + rejected).square()
    with torch.no_grad():
        both = torch.cat([chosen, rejected])
        named = {
            "accuracy": (gap > 0).float().mean(),
            "margin": gap.mean(),
            "mean_reward": both.mean(),
            "min_reward": both.min(),
            "max_reward": both.max(),
        }
        figures = dict(zip(named, torch.stack(list(named.values())).tolist()))
    return Loss(losses.sum(), float(len(chosen)), figures)
