"""kl: METHODS' identities, and the plain formula, by chunks, in float32, float64 and bfloat16."""

import math

import pytest
import torch
import torch.nn.functional as F

from endonym.methods.divergence import jensen_shannon, kl
from endonym.methods.nll import nll

N, D, WIDER, V = 23, 8, 11, 29
BETAS = [0.0, 0.1, 0.5, 0.9, 1.0]


def inputs(dtype=torch.float64, scale=1.0):
    draw = torch.Generator().manual_seed(0)
    student = torch.randn(N, D, generator=draw).to(dtype).requires_grad_()
    head = (scale * torch.randn(V, D, generator=draw)).to(dtype).requires_grad_()
    teacher = torch.randn(N, WIDER, generator=draw).to(dtype)
    teacher_head = (scale * torch.randn(V, WIDER, generator=draw)).to(dtype)
    weights = torch.rand(N, generator=draw) * (torch.rand(N, generator=draw) > 0.4)
    return student, head, teacher, teacher_head, weights


def logits(parts, caps=(None, None), temperature=1.0):
    """Student's and teacher's, [N, V]."""
    student, head, teacher, teacher_head, _ = parts
    found = []
    for z, cap in ((student @ head.t(), caps[0]), (teacher @ teacher_head.t(), caps[1])):
        found.append((z if cap is None else cap * torch.tanh(z / cap)) / temperature)
    return found


def plain(z, t, beta):
    """D(P || Q) by position, P of t: the formula as it stands, by autograd."""
    log_q, log_p = z.log_softmax(-1), t.log_softmax(-1)

    def divergence(log_a, log_b):
        return (log_a.exp() * (log_a - log_b)).sum(-1)

    if beta == 0:
        return divergence(log_p, log_q)
    if beta == 1:
        return divergence(log_q, log_p)
    log_m = (beta * log_p.exp() + (1 - beta) * log_q.exp()).log()
    return beta * divergence(log_p, log_m) + (1 - beta) * divergence(log_q, log_m)


def gradients(value, parts):
    return torch.autograd.grad(value, parts[:2])


def test_by_hand():
    # P = (1/2, 1/2), Q = (1/4, 3/4), weight 2. KL(P||Q) = 1/2 ln 2 + 1/2 ln(2/3) = 1/2 ln(4/3);
    # dz = 2 (Q - P) = (-1/2, 1/2), and with student state 1 the head's gradient is dz.
    head = torch.tensor([[0.0], [math.log(3)]], requires_grad=True)
    loss = kl(torch.ones(1, 1), head, torch.ones(1, 1), torch.zeros(2, 1), torch.tensor([2.0]))
    loss.value.backward()
    assert loss.value.item() == pytest.approx(math.log(4 / 3), abs=1e-6)
    assert head.grad.squeeze(1).tolist() == pytest.approx([-0.5, 0.5], abs=1e-6)
    assert float(loss.weight) == 2.0


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize(
    "caps, temperature", [((None, None), 1.0), ((None, None), 0.7), ((3.0, 2.0), 1.5)]
)
def test_is_the_plain_formula(beta, chunk, caps, temperature):
    # float64: sums in another order. Logits of size 8, so the caps bend most of them.
    parts = inputs()
    loss = kl(*parts, beta, temperature, chunk, caps)
    truth = (plain(*logits(parts, caps, temperature), beta) * parts[-1]).sum()
    torch.testing.assert_close(loss.value, truth, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(gradients(3 * loss.value, parts), gradients(3 * truth, parts)):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("beta", BETAS)
def test_float32_and_blocks(beta, monkeypatch):
    # float32: some 10 units in the last place of sums of 29 terms of size up to 10
    monkeypatch.setattr("endonym.methods.nll._BLOCK", 12 * V)
    parts, exact = inputs(torch.float32), inputs(torch.float64)
    loss = kl(*parts, beta, chunk=8)
    truth = (plain(*logits(exact), beta) * exact[-1]).sum()
    assert loss.value.dtype == torch.float32
    assert loss.value.item() == pytest.approx(truth.item(), rel=1e-5)
    for ours, theirs in zip(gradients(loss.value, parts), gradients(truth, exact)):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("top_k, tail", [(None, False), (5, False), (5, True)])
def test_finite_differences(beta, top_k, tail):
    student, head, teacher, teacher_head, weights = inputs()

    def value(student, head):
        given = (student, head, teacher[:4], teacher_head, weights[:4] + 0.1)
        return kl(*given, beta, 1.3, 3, (4.0, None), top_k, tail).value

    assert torch.autograd.gradcheck(value, (student[:4].detach().requires_grad_(), head))


@pytest.mark.parametrize("beta", BETAS)
def test_zero_only_where_the_two_are_equal(beta):
    parts = inputs()
    own = (parts[0], parts[1], parts[0].detach(), parts[1].detach(), parts[-1])
    loss = kl(*own, beta)
    assert loss.value.item() == pytest.approx(0, abs=1e-12)
    assert all(part.abs().max() < 1e-12 for part in gradients(loss.value, own))
    assert (plain(*logits(parts), beta) > 0.01).all()


def test_half_way_is_symmetric_and_below_ln_2():
    student, head, teacher, teacher_head, weights = inputs(scale=20.0)
    there = kl(student, head, teacher, teacher_head, weights, 0.5)
    back = kl(teacher, teacher_head, student, head, weights, 0.5)
    assert there.value.item() == pytest.approx(back.value.item(), rel=1e-12)
    assert 0.8 * math.log(2) < there.value.item() / float(there.weight) <= math.log(2)


def test_the_ends_are_limits_of_the_quotients():
    # METHODS 0.14: D itself tends to 0; D / beta and D / (1 - beta) differ from the limits by O(beta).
    parts, small = inputs(scale=0.3), 1e-5
    value = {beta: kl(*parts, beta).value.item() for beta in (0, small, 1 - small, 1)}
    assert value[small] / small == pytest.approx(value[0], rel=1e-3)
    assert value[1 - small] / small == pytest.approx(value[1], rel=1e-3)
    assert value[small] < 1e-3 * value[0] and value[1 - small] < 1e-3 * value[1]


def test_a_teacher_that_is_sure_gives_the_cross_entropy():
    student, head, *_, weights = inputs()
    labels = torch.arange(N) % V
    sure = F.one_hot(labels, V).double()
    loss = kl(student, head, sure, 200 * torch.eye(V, dtype=torch.float64), weights)
    wanted = nll(student, head, labels, weights)
    assert loss.value.item() == pytest.approx(wanted.value.item(), rel=1e-12)
    for a, b in zip(
        gradients(loss.value, [student, head]), gradients(wanted.value, [student, head])
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("tail", [False, True])
@pytest.mark.parametrize("beta", BETAS)
def test_all_tokens_kept_is_the_whole(beta, tail):
    parts = inputs()
    whole, kept = kl(*parts, beta), kl(*parts, beta, top_k=V, tail=tail)
    assert whole.value.item() == kept.value.item()
    # and one token short of all, with the rest as an outcome, is the whole but for the order
    almost = kl(*parts, beta, top_k=V - 1, tail=True)
    assert almost.value.item() == pytest.approx(whole.value.item(), rel=1e-10)
    for a, b in zip(gradients(almost.value, parts), gradients(whole.value, parts)):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def kept_logits(z, t, top_k, tail):
    """K (renormalised) or K + 1 log-probabilities of student and teacher, by autograd."""
    index = t.topk(top_k, dim=1).indices
    rest = torch.ones_like(t, dtype=torch.bool).scatter(1, index, False)
    found = []
    for each in (z, t):
        best = each.gather(1, index)
        others = each[rest].view(len(each), -1).logsumexp(1, keepdim=True)
        found.append(torch.cat([best, others], 1) if tail else best)
    return found


@pytest.mark.parametrize("tail", [False, True])
@pytest.mark.parametrize("beta", BETAS)
def test_top_k_is_the_formula_on_its_outcomes(beta, tail):
    parts = inputs()
    loss = kl(*parts, beta, 0.8, chunk=5, top_k=6, tail=tail)
    truth = plain(*kept_logits(*logits(parts, temperature=0.8), 6, tail), beta)
    truth = (truth * parts[-1]).sum()
    assert loss.value.item() == pytest.approx(truth.item(), rel=1e-10)
    for ours, theirs in zip(gradients(loss.value, parts), gradients(truth, parts)):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_what_the_kept_tokens_do_not_see():
    """METHODS 3.3: the tail moves by a constant: renormalised top-k does not notice, the others do."""
    # With the unit matrix as head the hidden states are the logits.
    z = torch.randn(1, V, dtype=torch.float64, requires_grad=True)
    t, eye, one = torch.randn(1, V, dtype=torch.float64), torch.eye(V).double(), torch.ones(1)
    index = t.topk(5).indices[0]
    rest = torch.ones(V, dtype=torch.bool).index_fill(0, index, False)
    moved = (z.detach() + 2 * rest).requires_grad_()

    def of(z, **kept):
        loss = kl(z, eye, t, eye, one, **kept).value
        return loss.item(), torch.autograd.grad(loss, z)[0][0]

    value, grad = of(z, top_k=5)
    assert of(moved, top_k=5)[0] == pytest.approx(value, rel=1e-12) and (grad[rest] == 0).all()
    value, grad = of(z, top_k=5, tail=True)
    assert of(moved, top_k=5, tail=True)[0] > value and (grad[rest] != 0).all()
    assert of(moved)[0] > of(z)[0] >= value  # fewer outcomes tell less: data processing


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_weight_zero_is_not_computed(beta):
    student, head, teacher, teacher_head, weights = inputs()
    with torch.no_grad():
        student[weights == 0] = float("nan")
        teacher[weights == 0] = float("nan")
    loss = kl(student, head, teacher, teacher_head, weights, beta)
    loss.value.backward()
    assert torch.isfinite(loss.value) and torch.isfinite(head.grad).all()
    assert (student.grad[weights == 0] == 0).all()
    assert (student.grad[weights != 0] != 0).any()


def test_nothing_to_learn_is_a_zero_with_a_gradient():
    parts = inputs()
    loss = kl(*parts[:-1], parts[-1] * 0)
    loss.value.backward()
    assert loss.value.item() == 0 and float(loss.weight) == 0 and (parts[1].grad == 0).all()


def test_rows_with_time_no_gradient_and_none_for_the_teacher():
    student, head, teacher, teacher_head, weights = inputs()
    teacher.requires_grad_(), teacher_head.requires_grad_()
    by_row = [part[:20].view(4, 5, *part.shape[1:]) for part in (student, teacher, weights)]
    loss = kl(by_row[0], head, by_row[1], teacher_head, by_row[2])
    loss.value.backward()
    assert teacher.grad is None and teacher_head.grad is None and head.grad is not None
    with torch.no_grad():
        again = kl(student[:20], head, teacher[:20], teacher_head, weights[:20])
    assert again.value.item() == pytest.approx(loss.value.item(), rel=1e-12)
    assert not again.value.requires_grad


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_bfloat16_under_autocast(beta):
    # Logits of size 3 rounded to 8 bits; the gradient keeps float32's dtype. 2e-2 as for all bf16.
    parts, full = inputs(torch.float32), inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = kl(*parts, beta)
    truth = kl(*full, beta)
    assert loss.value.dtype == torch.float32 and loss.value.item() != truth.value.item()
    assert loss.value.item() == pytest.approx(truth.value.item(), rel=2e-2)
    for ours, theirs in zip(gradients(loss.value, parts), gradients(truth.value, full)):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() / theirs.norm() < 3e-2


def test_the_graph_may_be_kept_and_the_gradient_is_still_right():
    parts = inputs()
    value = kl(*parts).value
    value.backward(retain_graph=True)
    once = parts[1].grad.clone()
    value.backward()
    torch.testing.assert_close(parts[1].grad, 2 * once, rtol=0, atol=0)


@pytest.mark.parametrize("beta", BETAS)
def test_probabilities_below_the_smallest_number_give_no_nan(beta):
    # one token has all of P and another all of Q; of the rest exp gives 0 in float32
    far = 300 * torch.eye(V)
    value, grad = jensen_shannon(far[:1].log_softmax(1), far[1:2].log_softmax(1), beta)
    assert torch.isfinite(value).all() and torch.isfinite(grad).all()
    assert value.item() == pytest.approx({0: 300, 1: 300, 0.5: math.log(2)}.get(beta, value.item()))


def test_unequal_vocabularies_are_refused():
    student, head, teacher, teacher_head, weights = inputs()
    with pytest.raises(ValueError, match="28 and 29 rows"):
        kl(student, head[:-1], teacher, teacher_head, weights)


def test_the_pieces_keep_probabilities():
    # the gradient by logits of a softmax sums to 0 in every row, whatever the divergence
    z, t = logits(inputs())
    for beta in BETAS:
        _, grad = jensen_shannon(t.log_softmax(1), z.detach().log_softmax(1), beta)
        assert grad.sum(1).abs().max() < 1e-12
