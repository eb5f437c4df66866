"""How far a student's next-token distribution is from a teacher's: the generalised Jensen-Shannon family,
over the whole vocabulary, from hidden states and heads, by chunks of tokens.

Teacher and student come as hidden states, so that a teacher may be a cache of its own (D numbers a
token instead of V). Shapes: N tokens, D width (a student's and a teacher's may differ), V vocabulary;
R rows of one chunk, K kept tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from endonym.methods.batch import Loss
from endonym.methods.nll import HeadGradient, block_rows, compute_dtype, exact, handed_out

CHUNK = 256
"""Rows of logits that exist at once, the student's and the teacher's."""


def kl(
    student_hidden: Tensor,
    student_head: Tensor,
    teacher_hidden: Tensor,
    teacher_head: Tensor,
    weights: Tensor,
    beta: float = 0.0,
    temperature: float = 1.0,
    chunk: int = CHUNK,
    caps: tuple[float | None, float | None] = (None, None),
    top_k: int | None = None,
    tail: bool = False,
    shared: tuple[Tensor, Tensor] | None = None,
) -> Loss:
    """Weighted sum over tokens of D(P || Q); P the teacher, Q the student, M = beta P + (1 - beta) Q.

        beta = 0       D = KL(P || Q)      dD/dz = Q - P
        beta = 1       D = KL(Q || P)      dD/dz = Q (u - KL(Q || P)),                u = log Q - log P
        between        D = beta KL(P || M) + (1 - beta) KL(Q || M)
                       dD/dz = (1 - beta) Q (u - KL(Q || M)),                         u = log Q - log M

    z: the student's logits, after the cap and divided by the temperature, as the teacher's are. GKD,
    arXiv:2306.13649, eq. 1; the ends are special cases as in TRL, since the formula between tends to 0
    at both of them (D / beta to KL(P || Q), D / (1 - beta) to KL(Q || P)). No factor temperature^2.

    top_k: of the teacher's K most probable tokens alone, both distributions renormalised over them, as
    Typhoon-S released it: no other token's logit has a gradient then, so the student is never told to
    leave a token that the teacher does not name. tail: the rest is one more outcome, with the
    probability that is left, and nothing is renormalised: a lower bound of the whole divergence, with
    a gradient everywhere. K = V, or None, is the whole vocabulary.

    shared: of two vocabularies the tokens that both have, (student's ids, teacher's ids), [C] each. All
    others are one more outcome on either side, as a tail is; where one side has no others, both are
    renormalised over the C.

    hidden states [..., D], heads [V, D], weights [...]; caps of (student, teacher), see nll. Nothing
    flows into the teacher. Gradients are formed in the forward pass, so that no more than 2 [chunk, V]
    logits exist at a time; positions of weight 0 are left out before the products; softmax and
    divergence are float32 (float64 of float64 states).
    """
    assert shared is None or top_k is None, "top_k is of one vocabulary"
    if shared is None and student_head.shape[0] != teacher_head.shape[0]:
        raise ValueError(
            f"the vocabularies differ: {student_head.shape[0]} and {teacher_head.shape[0]} rows "
            "(where one head is only padded, give its first rows)"
        )
    keep = (weights != 0).reshape(-1)
    index = slice(None) if bool(keep.all()) else keep.nonzero().squeeze(1)
    wanted = torch.is_grad_enabled() and (
        student_hidden.requires_grad or student_head.requires_grad
    )
    loss = _Divergence.apply(
        student_hidden.reshape(-1, student_hidden.shape[-1])[index],
        student_head,
        teacher_hidden.detach().reshape(-1, teacher_hidden.shape[-1])[index],
        teacher_head.detach(),
        weights.reshape(-1)[index],
        _Settings(
            beta, temperature, chunk, caps, top_k, tail, shared, compute_dtype(student_hidden)
        ),
        wanted,
    )
    return Loss(value=loss, weight=weights.sum(dtype=torch.float32))


@dataclass(frozen=True)
class _Settings:
    beta: float
    temperature: float
    chunk: int
    caps: tuple[float | None, float | None]
    top_k: int | None
    tail: bool
    shared: tuple[Tensor, Tensor] | None
    dtype: torch.dtype


class _Divergence(torch.autograd.Function):
    """The sum of kl(), whose backward pass only hands out what the forward pass has formed."""

    @staticmethod
    def forward(ctx, rows, head, teacher, teacher_head, weights, settings, wanted):
        with torch.autocast(rows.device.type, enabled=False):
            losses, rows_grad, head_grad = _run(
                rows, head, teacher, teacher_head, weights, settings, wanted,
                head_too=ctx.needs_input_grad[1],
            )  # fmt: skip
        ctx.save_for_backward(rows_grad, head_grad)
        return (losses * weights).sum()

    @staticmethod
    def backward(ctx, grad):
        return *handed_out(ctx, grad), None, None, None, None, None


def _run(
    rows: Tensor,
    head: Tensor,
    teacher: Tensor,
    teacher_head: Tensor,
    weights: Tensor,
    settings: _Settings,
    wanted: bool,
    head_too: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Divergences [N] and, where wanted, the gradients of their weighted sum."""
    dtype = settings.dtype
    chunk = max(1, min(settings.chunk, len(rows)))
    hidden, kernel = rows.detach().to(dtype), head.detach().to(dtype)
    teacher, teacher_kernel = teacher.to(dtype), teacher_head.to(dtype)
    losses = torch.empty(len(rows), dtype=exact(dtype), device=rows.device)
    ours, theirs = (
        torch.empty(chunk, len(each), dtype=dtype, device=rows.device)
        for each in (head, teacher_head)
    )
    rows_grad = torch.empty_like(hidden) if wanted else None
    head_grad = HeadGradient(kernel) if wanted and head_too else None
    for start in range(0, len(rows), chunk):
        here = slice(start, min(start + chunk, len(rows)))
        z = torch.mm(hidden[here], kernel.t(), out=ours[: here.stop - start])
        t = torch.mm(teacher[here], teacher_kernel.t(), out=theirs[: here.stop - start])
        losses[here] = _divergences_(z, t, settings, wanted)
        if not wanted:
            continue
        # z now holds the divergence's gradient by the logits; weights are left to the [R, D] side.
        scale = (weights[here].to(losses.dtype) / settings.temperature).unsqueeze(1)
        torch.mm(z, kernel, out=rows_grad[here])
        rows_grad[here] *= scale
        if head_grad is not None:
            head_grad.add(z, (hidden[here] * scale).to(dtype))
    return (
        losses,
        None if rows_grad is None else rows_grad.to(rows.dtype),
        None if head_grad is None else head_grad.sum.to(head.dtype),
    )


def _divergences_(z: Tensor, t: Tensor, settings: _Settings, wanted: bool) -> Tensor:
    """Divergences [R] of student logits z and teacher logits t, [R, V] each, before their caps.

    Where wanted, z is overwritten by the gradient by the capped z / temperature, times the cap's slope.
    """
    losses = torch.empty(len(z), dtype=exact(z.dtype), device=z.device)
    size, top_k = block_rows(z, held=4), settings.top_k
    is_whole = top_k is None or top_k >= z.shape[1]
    for start in range(0, len(z), size):
        here = slice(start, start + size)
        student, slope = _shaped(z[here], settings.caps[0], settings.temperature)
        teacher, _ = _shaped(t[here], settings.caps[1], settings.temperature)
        if settings.shared is not None:
            losses[here], grad = _of_shared(teacher, student, settings.shared, settings.beta)
        elif is_whole:
            losses[here], grad = jensen_shannon(
                teacher.log_softmax(1), student.log_softmax(1), settings.beta
            )
        elif settings.tail:
            losses[here], grad = _with_tail(teacher, student, top_k, settings.beta)
        else:
            losses[here], grad = _kept(teacher, student, top_k, settings.beta)
        if wanted:
            z[here] = grad if slope is None else grad.mul_(slope)
    return losses


def _shaped(z: Tensor, cap: float | None, temperature: float) -> tuple[Tensor, Tensor | None]:
    """Logits capped and divided by the temperature, in float32; and the cap's slope."""
    z, slope = z.to(exact(z.dtype)), None
    if cap is not None:
        bent = torch.tanh(z / cap)
        z, slope = bent * cap, 1 - bent.square()
    return (z if temperature == 1 else z / temperature), slope


def jensen_shannon(log_p: Tensor, log_q: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """D(P || Q) [R] of log-probabilities [R, C], and its gradient [R, C] by logits of Q (see kl).

    log_p is used as working space.
    """
    q = log_q.exp()
    if beta == 1:
        u = torch.sub(log_q, log_p, out=log_p)
        value = torch.linalg.vecdot(q, u)
        return value, q.mul_(u.sub_(value.unsqueeze(1)))
    p = log_p.exp()
    if beta == 0:
        value = torch.linalg.vecdot(p, log_p.sub_(log_q))
        return value, q.sub_(p)
    # Where both are too small to be told from 0, any finite logarithm will do: it meets a factor 0.
    log_m = torch.lerp(q, p, beta).clamp_min_(torch.finfo(q.dtype).tiny).log_()
    u = log_q - log_m
    value = torch.linalg.vecdot(q, u)
    theirs = torch.linalg.vecdot(p, log_p.sub_(log_m))
    grad = q.mul_(u.sub_(value.unsqueeze(1))).mul_(1 - beta)
    return beta * theirs + (1 - beta) * value, grad


def _kept(teacher: Tensor, student: Tensor, top_k: int, beta: float) -> tuple[Tensor, Tensor]:
    """jensen_shannon of the teacher's first K tokens, renormalised; the other gradients are 0."""
    best, index = teacher.topk(top_k, dim=1)
    value, part = jensen_shannon(best.log_softmax(1), student.gather(1, index).log_softmax(1), beta)
    return value, torch.zeros_like(student).scatter_(1, index, part)


def _with_tail(teacher: Tensor, student: Tensor, top_k: int, beta: float) -> tuple[Tensor, Tensor]:
    """jensen_shannon of K + 1 outcomes, the last being all other tokens.

    The tail's gradient goes to its tokens by their share of it, q_v / q_tail.
    """
    index = teacher.topk(top_k, dim=1).indices
    whole = student.log_softmax(1)
    log_p, log_q = _bucketed(teacher.log_softmax(1), index), _bucketed(whole, index)
    value, part = jensen_shannon(log_p, log_q, beta)
    grad = whole.sub_(log_q[:, -1:]).exp_().mul_(part[:, -1:])
    return value, grad.scatter_(1, index, part[:, :-1])


def _of_shared(
    teacher: Tensor, student: Tensor, shared: tuple[Tensor, Tensor], beta: float
) -> tuple[Tensor, Tensor]:
    """jensen_shannon of the C tokens that both vocabularies have and, where both have others, of these."""
    ours, theirs = (ids.expand(len(student), -1) for ids in shared)
    if min(each.shape[1] for each in (student, teacher)) == ours.shape[1]:
        log_p, log_q = teacher.gather(1, theirs), student.gather(1, ours)
        value, part = jensen_shannon(log_p.log_softmax(1), log_q.log_softmax(1), beta)
        return value, torch.zeros_like(student).scatter_(1, ours, part)
    whole = student.log_softmax(1)
    log_p, log_q = _bucketed(teacher.log_softmax(1), theirs), _bucketed(whole, ours)
    value, part = jensen_shannon(log_p, log_q, beta)
    grad = whole.sub_(log_q[:, -1:]).exp_().mul_(part[:, -1:])
    return value, grad.scatter_(1, ours, part[:, :-1])


def _bucketed(log_p: Tensor, index: Tensor) -> Tensor:
    """[R, K + 1]: log-probabilities of the tokens `index` [R, K] and of all others together."""
    others = log_p.scatter(1, index, -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([log_p.gather(1, index), others], 1)
