"""nll: the same loss and gradients as the plain formula, by chunks, with weights, in both dtypes."""

import pytest
import torch
import torch.nn.functional as F

from endonym.methods.nll import nll, token_logprobs

N, D, V = 37, 12, 29


def inputs(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, D, generator=generator).to(dtype).requires_grad_()
    head = torch.randn(V, D, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(V, (N,), generator=generator)
    weights = torch.rand(N, generator=generator) * (torch.rand(N, generator=generator) > 0.4)
    return hidden, head, labels, weights


def plain(hidden, head, labels, weights):
    losses = F.cross_entropy(hidden.float() @ head.float().t(), labels, reduction="none")
    return (losses * weights).sum()


def test_by_hand():
    # One token of hidden state 1, head (0, ln 3): p = (1/4, 3/4); label 1, weight 2.
    # L = -2 ln(3/4); dL/dz = 2 (1/4, -1/4); dL/dh = dz . W = -1/2 ln 3; dL/dW = dz h.
    log3 = torch.tensor(3.0).log()
    hidden = torch.ones(1, 1, requires_grad=True)
    head = torch.tensor([[0.0], [log3]], requires_grad=True)
    loss = nll(hidden, head, torch.tensor([1]), torch.tensor([2.0]))
    loss.value.backward()
    assert loss.value.item() == pytest.approx(-2 * torch.tensor(0.75).log().item(), abs=1e-6)
    assert hidden.grad.item() == pytest.approx(-0.5 * log3.item(), abs=1e-6)
    assert head.grad.squeeze(1).tolist() == pytest.approx([0.5, -0.5], abs=1e-6)
    assert float(loss.weight) == 2.0


@pytest.mark.parametrize("chunk", [1, 5, 8, N, 1000])
def test_chunked_is_naive(chunk):
    # float32: sums of up to 37 terms in another order, a few units in the last place
    ours, naive = inputs(), inputs()
    (3 * nll(*ours, chunk=chunk).value).backward()
    (3 * plain(*naive)).backward()
    torch.testing.assert_close(nll(*ours).value, plain(*naive), rtol=1e-6, atol=1e-5)
    for a, b in zip(ours[:2], naive[:2]):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-5)


def test_blocks_inside_a_chunk(monkeypatch):
    monkeypatch.setattr("endonym.methods.nll._BLOCK", 3 * V)
    test_chunked_is_naive(8)


def test_bfloat16_inputs_keep_a_float32_softmax():
    # The logits are rounded to 8 bits (2^-9 of |z| <= 10 each); the sum of 22 such losses moves by
    # about 22^0.5 * 0.02. Gradients: bfloat16 products, 2e-2 as for every bf16 comparison.
    ours, exact = inputs(torch.bfloat16), inputs(torch.bfloat16)
    loss = nll(*ours)
    loss.value.backward()
    truth = plain(*exact)
    truth.backward()
    assert loss.value.dtype == torch.float32
    assert loss.value.item() == pytest.approx(truth.item(), abs=0.1)
    for a, b in zip(ours[:2], exact[:2]):
        assert a.grad.dtype == torch.bfloat16
        assert ((a.grad - b.grad).float().norm() / b.grad.float().norm()) < 2e-2


def test_autocast_multiplies_in_bfloat16_and_keeps_float32_gradients():
    ours = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        loss = nll(*ours)
    loss.value.backward()
    full = inputs()
    exact = nll(*full)
    exact.value.backward()
    assert loss.value.item() != exact.value.item()
    assert ours[1].grad.dtype == torch.float32
    assert ((ours[1].grad - full[1].grad).norm() / full[1].grad.norm()) < 2e-2


def test_confident_labels_keep_an_exact_gradient_in_bfloat16():
    # z = (8, 0): 1 - p = 3.4e-4, below the spacing of bfloat16 at 1 (2^-8). Formed as p - 1 from a
    # rounded p it would be 0.
    hidden = torch.tensor([[8.0]], dtype=torch.bfloat16, requires_grad=True)
    head = torch.tensor([[1.0], [0.0]], dtype=torch.bfloat16)
    nll(hidden, head, torch.tensor([0]), torch.ones(1)).value.backward()
    assert hidden.grad.item() == pytest.approx(-1 / (1 + torch.tensor(8.0).exp().item()), rel=1e-2)


def test_weight_zero_is_not_computed():
    hidden, head, labels, weights = inputs()
    with torch.no_grad():
        hidden[weights == 0] = float("nan")
    loss = nll(hidden, head, labels, weights)
    loss.value.backward()
    assert torch.isfinite(loss.value) and torch.isfinite(head.grad).all()
    assert (hidden.grad[weights == 0] == 0).all()


def test_no_supervised_token_is_a_zero_with_a_gradient():
    hidden, head, labels, weights = inputs()
    loss = nll(hidden, head, labels, weights * 0)
    loss.value.backward()
    assert loss.value.item() == 0 and float(loss.weight) == 0
    assert (head.grad == 0).all() and (hidden.grad == 0).all()


def test_shapes_with_time_and_no_gradient():
    hidden, head, labels, weights = inputs()
    rows = lambda x: x[:36].view(4, 9, *x.shape[1:])  # noqa: E731
    with torch.no_grad():
        loss = nll(rows(hidden), head, rows(labels), rows(weights))
    truth = plain(hidden[:36], head, labels[:36], weights[:36])
    assert loss.value.item() == pytest.approx(truth.item(), abs=1e-4)  # 1e-6 of some 70
    assert not loss.value.requires_grad


def test_token_logprobs():
    hidden, head, labels, _ = inputs()
    truth = torch.log_softmax(hidden @ head.t(), -1).gather(1, labels[:, None])[:, 0].detach()
    ours = token_logprobs(hidden[:36].view(4, 9, D), head, labels[:36].view(4, 9), chunk=7)
    assert ours.shape == (4, 9) and ours.dtype == torch.float32
    torch.testing.assert_close(ours.view(-1), truth[:36], rtol=1e-5, atol=1e-5)  # float32 sums


@pytest.mark.parametrize("block", [1 << 18, 3 * V])
def test_soft_cap(block, monkeypatch):
    # logits of size 12 under a cap of 4: most are on its shoulders. float32, as test_chunked_is_naive
    monkeypatch.setattr("endonym.methods.nll._BLOCK", block)

    def capped(hidden, head, labels, weights):
        z = 4 * torch.tanh(hidden @ head.t() / 4)
        return (F.cross_entropy(z, labels, reduction="none") * weights).sum()

    ours, naive = inputs(), inputs()
    found = nll(*ours, chunk=8, cap=4.0)
    found.value.backward()
    capped(*naive).backward()
    torch.testing.assert_close(found.value, capped(*naive), rtol=1e-6, atol=1e-5)
    for a, b in zip(ours[:2], naive[:2]):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-5)
    logp = (4 * torch.tanh(naive[0] @ naive[1].t() / 4)).log_softmax(-1)
    wanted = logp.gather(1, naive[2][:, None])[:, 0]
    found = token_logprobs(*ours[:3], cap=4.0)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, token_logprobs(*ours[:3]), atol=0.1)
