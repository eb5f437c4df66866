"""The fast ways against the plain formulas, values and gradients."""

import pytest
import torch

from endonym.model import kernels
from endonym.model.kernels import attend, documents_in, rms_norm


def numbers(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()


def same(ours, plain, inputs, **tolerance):
    """Values, and gradients of a random weighting of them, by the two functions."""
    a, b = ours(*inputs), plain(*inputs)
    weight = numbers(*a.shape, seed=9).detach().to(a.dtype)
    torch.testing.assert_close(a, b, **tolerance)
    one = torch.autograd.grad((a * weight).sum(), inputs)
    two = torch.autograd.grad((b * weight).sum(), inputs)
    for x, y in zip(one, two):
        torch.testing.assert_close(x, y, **tolerance)


@pytest.mark.parametrize("block", [1, 40, 1 << 17])
def test_rms_norm(block, monkeypatch):
    monkeypatch.setattr(kernels, "_BLOCK", block)

    def plain(x, weight):
        return x * (x.square().mean(-1, keepdim=True) + 1e-2).rsqrt() * weight

    x, weight = numbers(3, 5, 16), numbers(16, seed=1)
    same(lambda x, w: rms_norm(x, w, 1e-2), plain, (x, weight), rtol=1e-5, atol=1e-5)  # float32
    with torch.no_grad():  # the way of inference
        torch.testing.assert_close(rms_norm(x, weight, 1e-2), plain(x, weight))


def test_rms_norm_leaves_its_input_alone():
    x, weight = numbers(4, 16), numbers(16, seed=1)
    before = x.detach().clone()
    rms_norm(x, weight, 1e-6).sum().backward()
    assert torch.equal(before, x)


def test_rms_norm_computes_in_float32():
    # 300^2 would be rounded to 8 bits in bfloat16, and 1e-6 beside it lost; the result is one rounding
    # away from the float32 one: 2^-8.
    x, weight = (300 * numbers(4, 16)).bfloat16(), numbers(16, seed=1)
    exact = rms_norm(x.float(), weight, 1e-6)
    torch.testing.assert_close(rms_norm(x, weight, 1e-6).float(), exact, rtol=2**-8, atol=0)


SEGMENTS = torch.tensor(
    [[1, 1, 1, 2, 2, 3, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1], [1, 0, 2, 2, 2, 2, 2, 0]]
)


@pytest.mark.parametrize("heads", [4, 2, 1])
def test_attention_over_documents(heads):
    def plain(q, k, v):
        k, v = (each.repeat_interleave(4 // heads, 2) for each in (k, v))
        scores = torch.einsum("bthc,bshc->bhts", q, k) / 8**0.5
        see = (SEGMENTS[:, :, None] == SEGMENTS[:, None]) & (SEGMENTS > 0)[:, :, None]
        see = see & torch.ones(8, 8, dtype=torch.bool).tril()
        p = scores.masked_fill(~see[:, None], -1e9).softmax(-1)
        return torch.einsum("bhts,bshc->bthc", p, v) * (SEGMENTS > 0)[..., None, None]

    documents = documents_in(SEGMENTS)
    inputs = numbers(3, 8, 4, 8), numbers(3, 8, heads, 8, seed=1), numbers(3, 8, heads, 8, seed=2)
    same(lambda *qkv: attend(*qkv, documents), plain, inputs, rtol=1e-5, atol=1e-5)  # float32


def test_short_documents_in_bfloat16_are_as_exact_as_float32(monkeypatch):
    documents = documents_in(SEGMENTS)
    inputs = [numbers(3, 8, 2, 8, seed=i, dtype=torch.bfloat16) for i in range(3)]
    exact = attend(*(each.float() for each in inputs), documents)
    # inside float32, one rounding to 8 bits at the end
    torch.testing.assert_close(attend(*inputs, documents).float(), exact, rtol=2**-8, atol=1e-6)
    monkeypatch.setattr(kernels, "SHORT", 0)
    torch.testing.assert_close(attend(*inputs, documents).float(), exact, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("time", [3, 6, 7, 12, 13, 31])
@pytest.mark.parametrize("band", [1, 4])
@pytest.mark.parametrize("window", [1, 3, 6])
def test_windowed_attention(window, band, time, monkeypatch):
    # whole, in one band and by blocks, with a last block that is not full
    monkeypatch.setattr(kernels, "BAND", band)

    def plain(q, k, v):
        k, v = (each.repeat_interleave(2, 2) for each in (k, v))
        scores = torch.einsum("bthc,bshc->bhts", q, k) * 0.7
        distance = torch.arange(time)[:, None] - torch.arange(time)
        p = scores.masked_fill((distance < 0) | (distance >= window), -1e9).softmax(-1)
        return torch.einsum("bhts,bshc->bthc", p, v)

    inputs = numbers(2, time, 4, 8), numbers(2, time, 2, 8, seed=1), numbers(2, time, 2, 8, seed=2)
    same(
        lambda *qkv: attend(*qkv, None, window, 0.7), plain, inputs, rtol=1e-5, atol=1e-5
    )  # float32


def test_windows_inside_documents():
    def plain(q, k, v):
        scores = torch.einsum("bthc,bshc->bhts", q, k) / 8**0.5
        distance = torch.arange(8)[:, None] - torch.arange(8)
        see = (SEGMENTS[:, :, None] == SEGMENTS[:, None]) & (SEGMENTS > 0)[:, :, None]
        see = see & (distance >= 0) & (distance < 2)
        p = scores.masked_fill(~see[:, None], -1e9).softmax(-1)
        return torch.einsum("bhts,bshc->bthc", p, v) * (SEGMENTS > 0)[..., None, None]

    documents = documents_in(SEGMENTS)
    inputs = [numbers(3, 8, 2, 8, seed=seed) for seed in range(3)]
    same(lambda *qkv: attend(*qkv, documents, 2), plain, inputs, rtol=1e-5, atol=1e-5)  # float32
