"""Group-relative policy optimisation: advantages among answers to one prompt, and the clipped loss.

Shapes: P prompts, G answers to each, B rows, T time.

    A_i    = (r_i - mean_j r_j) / (std_j r_j + eps)              DeepSeekMath, arXiv:2402.03300
    rho_it = p(o_it) / p_old(o_it)
    l_it   = min( rho_it A_i, clip(rho_it, 1 - low, 1 + high) A_i )
    L      = - sum_it w_it (c_it l_it - beta k3_it) / sum_it s_it

w and s say how tokens are put together (weights and "share" of a row, data of the loader):

    tokens      w = s = 1               every token alike: DAPO, arXiv:2503.14476
    sequences   w = s = 1 / |o_i|       every answer alike: DeepSeekMath
    constant    w = 1 / C, s = 1 / |o_i|    divided by the number of answers and a constant: Dr. GRPO,
                                        arXiv:2503.20783

Published kinds differ in nothing else: clip-higher is high > low (DAPO), Dr. GRPO and DAPO have
beta = 0, Dr. GRPO no division by the deviation.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from endonym.methods.batch import Loss, Rows
from endonym.methods.logprobs import selected_logprobs, surrogate

EPS = 1e-6
"""Added to a deviation. verl's; TRL adds 1e-4."""

LARGEST_LOG = 20.0
"""Log-ratios are held within so much before the exponential, as in verl: e^20 is still a number."""

Scale = Literal["std", "none", "batch"]


@dataclass(frozen=True)
class Policy:
    """The settings of the loss.

    low, high:   the clip's bounds are 1 - low and 1 + high
    dual:        c of the dual clip: with A < 0 the loss is at most c |A| (arXiv:1912.09729); verl's 3
    beta:        of the k3 estimate of KL(p || reference)
    cap:         C of truncated importance sampling, c = min(p_old / q, C); q: the sampler's
    temperature: at which the answers were drawn, and log-probabilities are taken
    """

    low: float = 0.2
    high: float = 0.2
    dual: float | None = None
    beta: float = 0.0
    cap: float | None = None
    temperature: float = 1.0


def advantages(
    rewards: Tensor, failed: Tensor | None = None, scale: Scale = "std"
) -> tuple[Tensor, Tensor]:
    """Advantages [P, G], and which answers have any weight [P, G] bool, out of rewards [P, G].

        std    (r - mean) / (std + eps)         mean and std of the group, std with G - 1
        batch  (r - mean) / (std + eps)         mean of the group, std of all rewards of the batch
        none   r - mean

    failed: answers that could not be judged. They are in no mean and no deviation and have no weight; a
    group with fewer than two judged answers has none at all, since nothing can be compared. Equal
    rewards give exactly 0, whatever their mean rounds to.
    """
    judged = torch.ones_like(rewards, dtype=torch.bool) if failed is None else ~failed
    counted = judged & (judged.sum(1, keepdim=True) >= 2)
    rewards = rewards.masked_fill(~counted, 0.0)
    count = counted.sum(1, keepdim=True)
    centred = rewards - rewards.sum(1, keepdim=True) / count.clamp(min=1)
    top = rewards.masked_fill(~counted, -torch.inf).amax(1, keepdim=True)
    bottom = rewards.masked_fill(~counted, torch.inf).amin(1, keepdim=True)
    centred = centred.masked_fill(~counted | (top == bottom), 0.0)
    if scale == "std":
        deviation = (centred.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
        centred = centred / (deviation + EPS)
    elif scale == "batch":
        every = rewards[counted]
        centred = centred / ((every.std() if len(every) > 1 else 0.0) + EPS)
    return centred, counted


def leave_one_out(rewards: Tensor) -> Tensor:
    """RLOO's advantages, [P, G]: r_i less the mean of the others = G / (G - 1) (r_i - mean)."""
    size = rewards.shape[1]
    return (rewards - rewards.mean(1, keepdim=True)) * (size / (size - 1))


def ratio(new: Tensor, old: Tensor) -> Tensor:
    """exp(new - old), of log-probabilities."""
    return (new - old).clamp(-LARGEST_LOG, LARGEST_LOG).exp()


def clipped(ratios: Tensor, advantages: Tensor, policy: Policy) -> Tensor:
    """l of the head of this file, of each token."""
    held = ratios.clamp(1 - policy.low, 1 + policy.high)
    gain = torch.minimum(ratios * advantages, held * advantages)
    if policy.dual is not None:
        gain = torch.where(advantages < 0, torch.maximum(gain, policy.dual * advantages), gain)
    return gain


def k3(new: Tensor, reference: Tensor) -> Tensor:
    """x - log x - 1 with x = reference / new: at least 0, and its mean over answers that are drawn from
    `new` is KL(new || reference) (Schulman, Approximating KL divergence, 2020)."""
    log = (reference - new).clamp(-LARGEST_LOG, LARGEST_LOG)
    return log.exp() - log - 1


def grpo(
    hidden: Tensor, head: Tensor, rows: Rows, policy: Policy, cap: float | None = None
) -> Loss:
    """The loss of the answers in these rows, from hidden states [B, T, D] and the head [V, D].

    rows.weights: w. rows.extra, all [B, T]: "advantage"; "share": s, whose sum is Loss.weight;
    "sampled": the sampler's log-probabilities; "old": those of the ratio, and where there are none the
    policy itself, detached: the ratio is exactly 1, as in the first update after sampling; "reference":
    those of the start model, for beta. cap: of the model's logits, see nll.

    Figures, by TRL's names: kl; clip_ratio/low_mean, high_mean and region_mean (tokens whose gradient
    the clip takes away, weighed by s); sampling/sampling_logp_difference/mean (of trainer and sampler,
    over tokens with an advantage) and sampling/importance_sampling_ratio/mean.
    """
    extra = rows.extra
    share = extra["share"].sum(dtype=torch.float32)
    where = (rows.weights != 0).reshape(-1)
    if policy.beta == 0:  # what has no advantage has no gradient
        where = where & (extra["advantage"] != 0).reshape(-1)
    index = where.nonzero().squeeze(1)

    def part(values: Tensor) -> Tensor:
        return values.reshape(-1)[index]

    states, labels = hidden.reshape(-1, hidden.shape[-1])[index], part(rows.labels)
    weights, gains = part(rows.weights), part(extra["advantage"])
    shares, sampled = part(extra["share"]), part(extra["sampled"])
    if "old" not in extra and policy.beta == 0 and policy.cap is None:
        # The gradient is known before the log-probabilities are: one product with the head less.
        value, new = surrogate(states, head, labels, -weights * gains, cap, policy.temperature)
        figures = {}
    else:
        new = selected_logprobs(states, head, labels, cap, policy.temperature)
        old = part(extra["old"]) if "old" in extra else new.detach()
        ratios = ratio(new, old)
        losses, figures = -clipped(ratios, gains, policy), _clips(ratios, gains, policy)
        if policy.cap is not None:
            corrections = ratio(old, sampled).clamp(max=policy.cap)
            losses = losses * corrections
            figures["sampling/importance_sampling_ratio/mean"] = corrections
        if policy.beta:
            apart = k3(new, part(extra["reference"]))
            losses = losses + policy.beta * apart
            figures["kl"] = apart
        value = (losses * weights).sum()
    figures["sampling/sampling_logp_difference/mean"] = (new - sampled).abs()
    # The loop makes the mean over micro-batches by their weights.
    whole = share.clamp(min=torch.finfo(torch.float32).tiny)
    means = {name: (each.detach() * shares).sum() / whole for name, each in figures.items()}
    return Loss(value, share, means)


def _clips(ratios: Tensor, gains: Tensor, policy: Policy) -> dict[str, Tensor]:
    low = ((ratios < 1 - policy.low) & (gains < 0)).float()
    high = ((ratios > 1 + policy.high) & (gains > 0)).float()
    return {
        "clip_ratio/low_mean": low,
        "clip_ratio/high_mean": high,
        "clip_ratio/region_mean": low + high,
    }
