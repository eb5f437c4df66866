"""spans: one tokenizer is the plain divergence; two are the formula, by hand and by differences."""

import math

import pytest
import torch

from endonym.methods.divergence import kl
from endonym.methods.spans import spans, two_outcomes

B, T, D, WIDER, V, W = 2, 9, 5, 4, 13, 17
"""V and W: the two vocabularies."""
BETAS = [0.0, 0.4, 1.0]


def parts():
    draw = torch.Generator().manual_seed(1)
    student = torch.randn(B, T, D, generator=draw).double().requires_grad_()
    head = torch.randn(V, D, generator=draw).double().requires_grad_()
    teacher = torch.randn(B, T, WIDER, generator=draw).double()
    teacher_head = torch.randn(W, WIDER, generator=draw).double()
    labels = torch.randint(0, V, (B, T), generator=draw)
    ours = torch.randperm(V, generator=draw)[:8].sort().values
    theirs = torch.randperm(W, generator=draw)[:8]
    return student, head, teacher, teacher_head, (ours, theirs), labels


def layout():
    """Row 0: spans at 1 (one token), 2 (tokens 2-4), 5; row 1: spans at 0 (0-1) and 6, 3-5 not compared."""
    weights, starts = torch.zeros(B, T).double(), torch.zeros(B, T, dtype=torch.int64)
    for line, column, weight in ((0, 1, 1.0), (0, 2, 3.0), (0, 5, 1.0), (1, 0, 2.0), (1, 6, 1.0)):
        weights[line, column] = weight
    starts[0, 2:5], starts[1, 0:2] = 3, 1
    logps = torch.zeros(B, T).double()
    logps[0, 2], logps[1, 0] = math.log(0.3), math.log(0.05)
    return weights, starts, logps


def bucketed(logits, ids):
    """log-probabilities of the tokens and of all others together, by autograd."""
    rest = torch.ones(logits.shape[-1], dtype=torch.bool).index_fill(0, ids, False)
    others = logits[..., rest].logsumexp(-1, keepdim=True)
    return torch.cat([logits[..., ids], others], -1).log_softmax(-1)


def divergence(log_p, log_q, beta):
    def one_way(log_a, log_b):
        return (log_a.exp() * (log_a - log_b)).sum(-1)

    if beta == 0:
        return one_way(log_p, log_q)
    if beta == 1:
        return one_way(log_q, log_p)
    log_m = (beta * log_p.exp() + (1 - beta) * log_q.exp()).log()
    return beta * one_way(log_p, log_m) + (1 - beta) * one_way(log_q, log_m)


@pytest.mark.parametrize("beta", BETAS)
def test_is_the_formula(beta):
    student, head, teacher, teacher_head, shared, labels = parts()
    weights, starts, logps = layout()
    caps, tau = (4.0, None), 1.2
    given = (student, head, teacher, teacher_head, shared, labels, weights, starts, logps)
    loss = spans(*given, beta=beta, temperature=tau, caps=caps)
    z = 4.0 * torch.tanh(student @ head.t() / 4.0) / tau
    t = teacher @ teacher_head.t() / tau
    truth = (weights * divergence(bucketed(t, shared[1]), bucketed(z, shared[0]), beta)).sum()
    token = z.log_softmax(-1).gather(-1, labels[..., None]).squeeze(-1)
    for line, inside, start in ((0, slice(2, 5), 2), (1, slice(0, 2), 0)):
        q, p = token[line, inside].sum().exp(), logps[line, start].exp()
        pair = [torch.stack([x, 1 - x]).log() for x in (p, q)]
        truth = truth + weights[line, start] * divergence(*pair, beta)
    assert loss.value.item() == pytest.approx(truth.item(), rel=1e-10)
    assert float(loss.weight) == 8.0
    ours, theirs = (torch.autograd.grad(each, (student, head)) for each in (loss.value, truth))
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("beta", BETAS)
def test_finite_differences(beta):
    student, head, *others = parts()
    weights, starts, logps = layout()

    def value(student, head):
        return spans(student, head, *others, weights, starts, logps, beta=beta).value

    assert torch.autograd.gradcheck(value, (student, head))


@pytest.mark.parametrize("beta", BETAS)
def test_one_tokenizer_is_the_plain_divergence(beta):
    student, head, teacher, _, _, labels = parts()
    teacher_head = torch.randn(V, WIDER).double()
    weights = (torch.rand(B, T) < 0.7).double()
    every = (torch.arange(V), torch.arange(V))
    nothing = torch.zeros(B, T, dtype=torch.int64), torch.zeros(B, T)
    loss = spans(student, head, teacher, teacher_head, every, labels, weights, *nothing, beta=beta)
    plain = kl(student, head, teacher, teacher_head, weights, beta)
    assert loss.value.item() == plain.value.item() and float(loss.weight) == float(plain.weight)
    for a, b in zip(*(torch.autograd.grad(x.value, (student, head)) for x in (loss, plain))):
        assert torch.equal(a, b)


@pytest.mark.parametrize("beta", BETAS)
def test_ids_dealt_out_otherwise(beta):
    student, head, teacher, *_ = parts()
    teacher_head, order = torch.randn(V, WIDER).double(), torch.randperm(V)
    weights = torch.ones(B, T).double()
    plain = kl(student, head, teacher, teacher_head, weights, beta)
    moved = kl(student, head, teacher, teacher_head[order], weights, beta,
               shared=(torch.arange(V), order.argsort()))  # fmt: skip
    assert moved.value.item() == pytest.approx(plain.value.item(), rel=1e-12)


def test_a_side_without_others_is_compared_on_what_both_have():
    student, head, teacher, teacher_head, _, _ = parts()
    every, some = torch.arange(V), torch.arange(V) + 2
    weights = torch.ones(B, T).double()
    loss = kl(student, head, teacher, teacher_head, weights, 1.0, shared=(every, some))
    wanted = kl(student, head, teacher, teacher_head[some], weights, 1.0)
    assert loss.value.item() == pytest.approx(wanted.value.item(), rel=1e-12)
    assert torch.isfinite(loss.value)


def test_the_student_is_told_to_leave_what_the_teacher_does_not_know():
    """The gradient of tokens without a name falls on them by their share, and is not 0."""
    _, _, teacher, teacher_head, shared, _ = parts()
    unit = torch.eye(V).double()
    z = torch.randn(1, V).double().requires_grad_()
    loss = kl(z, unit, teacher[0, :1], teacher_head, torch.ones(1), shared=shared)
    (grad,) = torch.autograd.grad(loss.value, z)
    rest = torch.ones(V, dtype=torch.bool).index_fill(0, shared[0], False)
    q = z.softmax(1)[0, rest]
    torch.testing.assert_close(grad[0, rest] / grad[0, rest].sum(), q / q.sum())
    assert grad.sum().abs() < 1e-12 and (grad[0, rest] != 0).all()


@pytest.mark.parametrize("beta", BETAS)
def test_two_outcomes(beta):
    log_p = torch.tensor([math.log(0.3), -40.0, -1e-9, math.log(0.3)]).double()
    log_q = torch.tensor([math.log(0.6), -30.0, -2.0, math.log(0.3)]).double().requires_grad_()
    value = two_outcomes(log_p, log_q, beta)
    value.sum().backward()
    assert torch.isfinite(value).all() and torch.isfinite(log_q.grad).all()
    assert value[3].item() == pytest.approx(0, abs=1e-15) and (value[:3] > 0).all()
    if beta == 0:
        by_hand = 0.3 * math.log(0.5) + 0.7 * math.log(0.7 / 0.4)
        assert value[0].item() == pytest.approx(by_hand)
