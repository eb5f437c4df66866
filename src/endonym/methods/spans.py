"""Distillation between two tokenizers: distributions compared where their texts have a boundary in common.

Shapes: B rows, T time of the student's rows, D width, V vocabulary, C strings that both vocabularies hold.
"""

from dataclasses import replace

import torch
from torch import Tensor

from endonym.methods.batch import Loss
from endonym.methods.distill import with_labels
from endonym.methods.divergence import kl
from endonym.methods.logprobs import selected_logprobs


def spans(
    student_hidden: Tensor,
    student_head: Tensor,
    teacher_hidden: Tensor,
    teacher_head: Tensor,
    shared: tuple[Tensor, Tensor],
    labels: Tensor,
    weights: Tensor,
    starts: Tensor,
    logps: Tensor,
    given: Tensor | None = None,
    *,
    cross_entropy: float = 0.0,
    beta: float = 0.0,
    temperature: float = 1.0,
    caps: tuple[float | None, float | None] = (None, None),
) -> Loss:
    """The weighted sum over spans of what student and teacher say of the text from their beginning on.

    An answer's text is cut where both tokenizers have a boundary, into spans k of one or more tokens on
    either side, S_k and T_k. Before each span both models have read the same text, so that

        L = sum_k w_k [ D( P_k || Q_k ) + m_k D2( p_k || q_k ) ]

        P_k, Q_k   next-token distributions before span k, over the C strings that both vocabularies
                   hold and one outcome for all others (divergence.kl, shared)
        p_k, q_k   probability of the span by the chain rule, prod over its tokens of p(token | before)
        D2         the same divergence of the two outcomes "this span" and "any other text"
        m_k        0 where the span is one token on both sides and both hold its string: P_k and Q_k have
                   it as an outcome of their own; else 1

    With one tokenizer every token is a span, C = V and m = 0: the plain divergence, term by term.

    What is approximate. (1) That the next token is "the" is not one event: of a text that goes on with
    "then" it is true for a tokenizer that cuts th-en or the-n and false for one that holds "then". The
    first term takes equal strings for equal events. (2) p_k is the probability of one way to cut the
    span; others that spell the same text are left out, on both sides. (3) Where S_k is longer than one
    token, nothing but q_k tells the student what to do inside the span.

    Ours, out of three: ULD, arXiv:2402.12030, compares sorted probabilities, whatever they belong to;
    TRL's GOLD merges spans by the chain rule, compares equal strings by name and sorts the rest; ALM,
    arXiv:2503.20083, compares likelihoods of spans as two outcomes. Nothing is sorted here: what has no
    name in common is one outcome, and so the student is told to leave it when the teacher does.

    teacher_hidden [B, T, D']: at the student's position before each span, the teacher's state there;
    weights [B, T]: w_k at that position, 0 elsewhere; starts [B, T] int64: for each token of a span
    with m = 1 the column of that position plus 1, else 0; logps [B, T]: log p_k at that position.
    given, cross_entropy: as in methods/distill.py.
    """
    loss = kl(
        student_hidden, student_head, teacher_hidden, teacher_head, weights,
        beta, temperature, caps=caps, shared=shared,
    )  # fmt: skip
    inside = starts > 0
    if bool(inside.any()):
        line = torch.arange(len(starts), device=starts.device)[:, None] * starts.shape[1]
        span = (line + starts - 1)[inside]
        log_q = selected_logprobs(
            student_hidden[inside], student_head, labels[inside], caps[0], temperature
        )
        sums = log_q.new_zeros(starts.numel()).index_add(0, span, log_q)
        at = span.unique()
        terms = weights.reshape(-1)[at] * two_outcomes(logps.reshape(-1)[at], sums[at], beta)
        loss = replace(loss, value=loss.value + terms.sum())
    return with_labels(loss, student_hidden, student_head, labels, given, cross_entropy, caps[0])


def two_outcomes(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """D of the distributions (p, 1 - p) and (q, 1 - q), elementwise, out of log p and log q."""
    log_p, log_q = (torch.stack([x, _log_rest(x)], -1) for x in (log_p.to(log_q.dtype), log_q))

    def divergence(log_a: Tensor, log_b: Tensor) -> Tensor:
        return (log_a.exp() * (log_a - log_b)).sum(-1)

    if beta == 0:
        return divergence(log_p, log_q)
    if beta == 1:
        return divergence(log_q, log_p)
    log_m = (
        torch.lerp(log_q.exp(), log_p.exp(), beta).clamp_min(torch.finfo(log_q.dtype).tiny).log()
    )
    return beta * divergence(log_p, log_m) + (1 - beta) * divergence(log_q, log_m)


CERTAIN = -1e-6
"""log p is taken to be at most this: with p = 1 the other outcome's logarithm would be infinite."""


def _log_rest(log_p: Tensor) -> Tensor:
    """log(1 - p)."""
    log_p = log_p.clamp_max(CERTAIN)
    return torch.where(
        log_p > -0.6931, torch.log(-torch.expm1(log_p)), torch.log1p(-torch.exp(log_p))
    )
