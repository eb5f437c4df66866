"""selected_logprobs: values and gradients of the plain formula under any use of them."""

import pytest
import torch

from endonym.methods.logprobs import selected_logprobs
from endonym.methods.nll import nll, token_logprobs

N, D, V = 23, 8, 29


def inputs(dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, D, generator=draw).to(dtype).requires_grad_()
    head = torch.randn(V, D, generator=draw).to(dtype).requires_grad_()
    return hidden, head, torch.randint(V, (N,), generator=draw)


def plain(hidden, head, labels, cap=None, temperature=1.0):
    z = hidden @ head.t()
    z = z if cap is None else cap * torch.tanh(z / cap)
    return (z / temperature).log_softmax(-1).gather(1, labels[:, None])[:, 0]


def use(logprobs):
    """A function of them that is no weighted sum: a clipped ratio, with positions of no gradient."""
    ratio = (logprobs + 3).exp()
    return torch.minimum(ratio, ratio.clamp(0.5, 1.2)).square().sum()


def test_by_hand():
    # h = 1, head (0, ln 3): p = (1/4, 3/4); d log p_1 / dh = (1 - 3/4) ln 3
    log3 = torch.tensor(3.0).log()
    hidden = torch.ones(1, 1, requires_grad=True)
    found = selected_logprobs(hidden, torch.tensor([[0.0], [log3]]), torch.tensor([1]))
    found.backward()
    assert found.item() == pytest.approx(torch.tensor(0.75).log().item(), abs=1e-6)
    assert hidden.grad.item() == pytest.approx(0.25 * log3.item(), abs=1e-6)


@pytest.mark.parametrize("chunk", [1, 5, N, 1000])
@pytest.mark.parametrize("cap, temperature", [(None, 1.0), (None, 0.6), (3.0, 1.0), (3.0, 1.7)])
def test_is_the_plain_formula(chunk, cap, temperature):
    hidden, head, labels = inputs()
    ours = selected_logprobs(hidden, head, labels, cap, temperature, chunk)
    theirs = plain(hidden, head, labels, cap, temperature)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)  # float64
    found = torch.autograd.grad(use(ours), [hidden, head])
    for a, b in zip(found, torch.autograd.grad(use(theirs), [hidden, head])):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_finite_differences():
    hidden, head, labels = inputs()

    def value(hidden, head):
        return selected_logprobs(hidden, head, labels[:6], 4.0, 1.3, 4)

    assert torch.autograd.gradcheck(value, (hidden[:6].detach().requires_grad_(), head))


def test_float32_is_nll_and_token_logprobs():
    hidden, head, labels = inputs(torch.float32)
    weights = (torch.arange(N) % 3).float()
    ours = selected_logprobs(hidden, head, labels)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, token_logprobs(hidden, head, labels))
    loss = nll(hidden, head, labels, weights).value
    found = torch.autograd.grad(-(ours * weights).sum(), [hidden, head])
    for a, b in zip(found, torch.autograd.grad(loss, [hidden, head])):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)  # the same sums, otherwise rounded


def test_positions_without_gradient_are_not_computed_again():
    hidden, head, labels = inputs()
    with torch.no_grad():
        hidden[3:] = float("nan")
    selected_logprobs(hidden, head, labels)[:3].sum().backward()
    assert torch.isfinite(head.grad).all() and (hidden.grad[3:] == 0).all()


def test_shapes_with_time_and_frozen_parts():
    hidden, head, labels = inputs()
    found = selected_logprobs(hidden.detach()[:20].view(4, 5, D), head, labels[:20].view(4, 5))
    assert found.shape == (4, 5)
    found.sum().backward()
    assert head.grad is not None
    found = selected_logprobs(hidden, head.detach(), labels)
    found.sum().backward()
    assert hidden.grad is not None


def test_bfloat16_under_autocast():
    hidden, head, labels = inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ours = selected_logprobs(hidden, head, labels)
        found = torch.autograd.grad(ours.sum(), [hidden, head])
    theirs = plain(hidden, head, labels)
    assert ours.dtype == torch.float32 and not torch.equal(ours, theirs)
    # logits of size up to 10, rounded to 8 bits: 2^-9 of them each
    torch.testing.assert_close(ours, theirs, atol=6e-2, rtol=0)
    for a, b in zip(found, torch.autograd.grad(theirs.sum(), [hidden, head])):
        assert a.dtype == torch.float32 and (a - b).norm() / b.norm() < 2e-2
