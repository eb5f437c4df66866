"""distill: METHODS 1.7 and 3.1 on whole rows: masks, padding, cross-entropy on given answers alone."""

import pytest
import torch

from endonym.methods.distill import distill
from endonym.methods.divergence import kl
from endonym.methods.nll import nll

B, T, D, WIDER, V = 3, 7, 6, 5, 19


def parts(dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)
    student = torch.randn(B, T, D, generator=draw).to(dtype).requires_grad_()
    head = torch.randn(V, D, generator=draw).to(dtype).requires_grad_()
    teacher = torch.randn(B, T, WIDER, generator=draw).to(dtype)
    teacher_head = torch.randn(V, WIDER, generator=draw).to(dtype)
    labels = torch.randint(0, V, (B, T), generator=draw)
    weights = (torch.rand(B, T, generator=draw) < 0.6).float()
    return student, head, teacher, teacher_head, labels, weights


def gradients(value, of):
    return torch.autograd.grad(value, of)


def test_without_cross_entropy_it_is_the_divergence():
    *states, labels, weights = parts()
    ours = distill(*states, labels, weights, beta=0.5, temperature=1.3, caps=(3.0, None))
    wanted = kl(*states, weights, 0.5, 1.3, caps=(3.0, None))
    assert ours.value.item() == wanted.value.item() and float(ours.weight) == float(weights.sum())


def test_cross_entropy_is_added_on_given_answers():
    *states, labels, weights = parts()
    given = weights.clone()
    given[0] = 0  # an answer that the student has drawn
    loss = distill(*states, labels, weights, given, cross_entropy=0.25)
    plain, other = kl(*states, weights), nll(states[0], states[1], labels, given)
    truth = plain.value + 0.25 * other.value
    assert loss.value.item() == pytest.approx(truth.item(), rel=1e-12)
    for a, b in zip(gradients(loss.value, states[:2]), gradients(truth, states[:2])):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert loss.figures["divergence"] == pytest.approx(plain.value.item() / weights.sum().item())
    assert loss.figures["cross_entropy"] == pytest.approx(other.value.item() / weights.sum().item())


def test_finite_differences():
    *states, labels, weights = parts()

    def value(student, head):
        given = (student, head, *states[2:], labels, weights, weights)
        return distill(*given, cross_entropy=0.5, beta=0.3, temperature=1.2).value

    assert torch.autograd.gradcheck(value, states[:2])


def test_a_teacher_that_is_sure_gives_the_cross_entropy_alone():
    """Forward KL to a one-hot teacher is - log Q of its token; with weight 1 both terms are one."""
    student, head, _, _, labels, weights = parts()
    sure = torch.nn.functional.one_hot(labels, V).double()
    loss = distill(student, head, sure, 200 * torch.eye(V).double(), labels, weights)
    wanted = nll(student, head, labels, weights)
    assert loss.value.item() == pytest.approx(wanted.value.item(), rel=1e-12)


def test_padding_prompts_and_their_labels_do_not_count():
    *states, labels, weights = parts()
    whole = distill(*states, labels, weights, weights, cross_entropy=0.5)
    wide = [
        torch.nn.functional.pad(each, (0, 0, 0, 3), value=7.0)
        for each in (states[0].detach(), states[2])
    ]
    zeros = torch.nn.functional.pad(weights, (0, 3))
    padded = torch.nn.functional.pad(labels, (0, 3), value=3)
    other = torch.where(zeros > 0, padded, (padded + 5) % V)
    again = distill(wide[0], states[1], wide[1], states[3], other, zeros, zeros, cross_entropy=0.5)
    assert again.value.item() == pytest.approx(whole.value.item(), rel=1e-12)
    assert float(again.weight) == float(whole.weight)
    (grad,) = gradients(whole.value, states[:1])
    assert (grad[weights == 0] == 0).all() and (grad[weights > 0] != 0).any()


def test_the_teacher_gets_no_gradient():
    student, head, teacher, teacher_head, labels, weights = parts()
    teacher.requires_grad_(), teacher_head.requires_grad_()
    given = (student, head, teacher, teacher_head, labels, weights, weights)
    distill(*given, cross_entropy=1.0).value.backward()
    assert teacher.grad is None and teacher_head.grad is None and head.grad is not None


def test_cross_entropy_must_be_told_which_answers_the_data_gave():
    *states, labels, weights = parts()
    nobody = torch.zeros_like(weights)
    loss = distill(*states, labels, weights, nobody, cross_entropy=3.0)
    assert loss.value.item() == kl(*states, weights).value.item()
    with pytest.raises(AssertionError, match="which answers"):
        distill(*states, labels, weights, cross_entropy=3.0)
