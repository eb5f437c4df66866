"""Balance: the identities of the auxiliary losses, and the rule of the biases by hand."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from endonym.methods.balance import (
    balance,
    balance_by_sequence,
    balanced,
    dead,
    entropy,
    figures,
    load,
    update_bias,
)
from endonym.methods.batch import Loss

B, T, N, K = 3, 8, 4, 2


@dataclass
class Route:
    scores: Tensor
    chosen: Tensor


def routed(seed=0, kind="softmax"):
    logits = torch.randn(B, T, N, generator=torch.Generator().manual_seed(seed))
    scores = logits.softmax(-1) if kind == "softmax" else logits.sigmoid()
    scores = scores.requires_grad_()
    return scores, scores.topk(K, -1).indices


def test_by_hand():
    # Two tokens, two experts, K = 1: scores (0.9, 0.1) and (0.6, 0.4) choose expert 0 twice.
    # f = 2/(1 2) (2, 0) = (2, 0); P = (0.75, 0.25); L = 1.5. Sigmoid scores: (0.9, 0.9) is (0.5, 0.5).
    chosen = torch.zeros(1, 2, 1, dtype=torch.long)
    scores = torch.tensor([[[0.9, 0.1], [0.6, 0.4]]])
    assert balance(scores, chosen).item() == pytest.approx(1.5)
    scores = torch.tensor([[[0.9, 0.9], [0.6, 0.4]]])
    assert balance(scores, chosen).item() == pytest.approx(2 * (0.5 + 0.6) / 2)


def test_even_use_is_one():
    scores = torch.full((B, T, N), 0.3)
    chosen = torch.stack([torch.arange(T) % N, (torch.arange(T) + 1) % N], -1).expand(B, T, K)
    for function in (balance, balance_by_sequence):
        assert function(scores, chosen).item() == pytest.approx(1)


def test_collapse_is_n_over_k():
    scores = torch.full((B, T, N), 1e-9)
    scores[..., :K] = 0.8
    chosen = torch.arange(K).expand(B, T, K)
    for function in (balance, balance_by_sequence):
        assert function(scores, chosen).item() == pytest.approx(N / K)


def test_transformers_value_is_k_times_ours():
    mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    logits = torch.randn(B * T, N, generator=torch.Generator().manual_seed(0))
    scores = logits.softmax(-1).view(B, T, N)
    theirs = mixtral.load_balancing_loss_func((logits,), N, K)
    ours = balance(scores, scores.topk(K, -1).indices)
    assert theirs.item() == pytest.approx(K * ours.item(), rel=1e-6)


def test_by_sequence_is_the_mean_over_rows():
    scores, chosen = routed(kind="sigmoid")
    rows = [balance(scores[i : i + 1], chosen[i : i + 1]).item() for i in range(B)]
    assert balance_by_sequence(scores, chosen).item() == pytest.approx(sum(rows) / B)
    assert balance(scores, chosen).item() != pytest.approx(sum(rows) / B)


def test_padding_counts_for_nothing():
    scores, chosen = routed()
    real = torch.ones(B, T, dtype=torch.bool)
    real[0, 5:] = real[2] = False
    wanted = [balance(scores[:1, :5], chosen[:1, :5]), balance(scores[1:2], chosen[1:2])]
    assert balance_by_sequence(scores, chosen, real).item() == pytest.approx(
        sum(each.item() for each in wanted) / 2
    )
    taken = balance(scores[real][None], chosen[real][None])
    assert balance(scores, chosen, real).item() == pytest.approx(taken.item())
    assert torch.equal(load(chosen, N, real), load(chosen[real], N))
    (grad,) = torch.autograd.grad(balance(scores, chosen, real), scores)
    assert (grad[~real] == 0).all() and (grad[real] != 0).any()


def test_the_gradient_takes_from_the_busy():
    # f has no gradient; through P the scores of experts with a load above the mean fall, if descended
    scores = torch.full((1, 4, 2), 0.5, requires_grad=True)
    chosen = torch.tensor([[[0], [0], [0], [1]]])
    (grad,) = torch.autograd.grad(balance(scores, chosen), scores)
    assert (grad[..., 0] > 0).all() and (grad[..., 1] < 0).all()


def test_bias_by_hand():
    bias = torch.tensor([0.5, 0.0, 0.0, 0.0])
    update_bias(bias, torch.tensor([10, 2, 4, 0]), 0.01)  # the mean is 4
    torch.testing.assert_close(bias, torch.tensor([0.49, 0.01, 0.0, 0.01]))


def test_statistics():
    assert entropy(torch.tensor([5, 5, 5, 5])) == pytest.approx(1)
    assert entropy(torch.tensor([9, 0, 0, 0])) == 0
    assert entropy(torch.tensor([1, 1, 0, 0])) == pytest.approx(0.5)  # ln 2 / ln 4
    assert entropy(torch.tensor([0, 0])) == 0 and dead(torch.tensor([3, 0, 0, 1])) == 2
    chosen = torch.tensor([[[0, 1], [0, 1]]])
    found = figures([Route(torch.ones(1, 2, 4), chosen)] * 2)
    assert found == {"load_entropy": pytest.approx(0.5), "dead_experts": 2, "load_max": 2}
    assert figures([]) == {}


def test_balanced_is_in_units_of_the_mean_loss():
    scores, chosen = routed()
    loss = Loss(torch.tensor(6.0, requires_grad=True), torch.tensor(3.0), {"a": 1.0})
    found = balanced(loss, [Route(scores, chosen)] * 2, whole=0.5, by_sequence=0.25)
    each = 0.5 * balance(scores, chosen) + 0.25 * balance_by_sequence(scores, chosen)
    assert (found.value / found.weight).item() == pytest.approx(2 + 2 * each.item())
    assert found.figures["a"] == 1 and "load_entropy" in found.figures
    assert balanced(loss, [Route(scores, chosen)], by_sequence=0).value is loss.value
