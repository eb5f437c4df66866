"""GRPO with injected knowledge: a policy loss, and in some steps the likelihood of a text beside it.

    L    = L_GRPO + lambda b L_CE,      b ~ Bernoulli(rho), once an optimizer step
    L_CE = - sum_t m_t log p(x_t | x_<t) / sum_t m_t          Typhoon-S, arXiv:2601.18129, section 3

Rollouts teach only what they contain: a fact that is never drawn is never rewarded. The text has it.

Two things of the authors' code are not repeated. Each process draws a b of its own there, which under
sharded weights leaves some waiting for the others; here b is a function of seed and step. And the text's
loss is scaled there by what the last micro-batch of rollouts happened to hold; here both terms are means
over the whole step, whatever micro-batches and processes there are. At temperature 1 in any case: the
policy's terms are taken at the sampler's.
"""

import hashlib

import torch
from torch import Tensor

from endonym.methods.batch import Loss, Rows
from endonym.methods.grpo import Policy, grpo
from endonym.methods.nll import nll


def injects(seed: int, step: int, rho: float) -> bool:
    """b of a step: the same in every process, and again after a resume."""
    digest = hashlib.blake2b(f"injects {seed} {step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < rho * 2.0**64


def text_scale(lmbda: float, share: float, weight: float) -> tuple[float, float]:
    """(factor of the text's weights, of its share) that make lambda L_CE of it.

        sum of values / sum of shares = L_GRPO + lambda sum_t m_t ce_t / sum_t m_t

    share: the sum of s over all answers of the step, in all processes; weight: the sum of m of its text.
    The text has no share, unless there is no answer to learn from: then the loss is lambda L_CE alone.
    """
    return (lmbda * share / weight, 0.0) if share else (lmbda / weight, 1.0 / weight)


def ink_grpo(
    hidden: Tensor, head: Tensor, rows: Rows, policy: Policy, cap: float | None = None
) -> Loss:
    """Both terms of rows in which answers and text stand side by side; grpo() where there is no text.

    rows.extra["text"], [B, T] bool: positions of the text. Their weights and share are scaled as
    text_scale says; what grpo reads of them is not looked at. The figure loss/policy is GRPO's own part
    of the loss, so what is left of it is lambda L_CE.
    """
    if "text" not in rows.extra:
        return grpo(hidden, head, rows, policy, cap)
    text = rows.extra["text"]
    answers = Rows(
        rows.tokens, rows.labels, rows.weights.masked_fill(text, 0.0), rows.segments,
        rows.positions, rows.extra,
    )  # fmt: skip
    learnt = grpo(hidden, head, answers, policy, cap)
    said = nll(hidden, head, rows.labels, rows.weights.masked_fill(~text, 0.0), cap=cap)
    whole = learnt.weight.clamp(min=torch.finfo(torch.float32).tiny)
    figures = learnt.figures | {"loss/policy": learnt.value.detach() / whole}
    return Loss(learnt.value + said.value, learnt.weight, figures)
