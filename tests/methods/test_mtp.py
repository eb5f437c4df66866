"""Multi-token prediction: which token is meant, where the loss stops, and what weight 0 leaves alone."""

import pytest
import torch

from endonym.methods.mtp import further, mtp
from endonym.methods.nll import nll

V = 12
COUNT = torch.arange(8)[None]  # the sequence i, i + 1, ...
LABELS = COUNT + 1
WEIGHTS = torch.tensor([[1.0] * 7 + [0.0]])  # the last token has no next one
ONE = torch.ones(1, 8, dtype=torch.long)


def sure_of(tokens):
    """Hidden states that, with the identity as head, put everything on `tokens`."""
    return 50 * torch.nn.functional.one_hot(tokens.clamp(max=V - 1), V).float()


def test_a_module_is_asked_for_the_token_after_next():
    right = mtp(
        sure_of(COUNT + 1), [sure_of(COUNT + 2)], torch.eye(V), LABELS, WEIGHTS, ONE, weight=1.0
    )
    assert right.value.item() == pytest.approx(0, abs=1e-6)
    for wrong in (COUNT + 1, COUNT + 3):
        loss = mtp(
            sure_of(COUNT + 1), [sure_of(wrong)], torch.eye(V), LABELS, WEIGHTS, ONE, weight=1.0
        )
        # 50 nats at each of the 6 positions that have a token after the next
        assert loss.value.item() == pytest.approx(6 * 50)
        assert loss.figures == {"ntp": pytest.approx(0, abs=1e-6), "mtp": pytest.approx(50)}


def test_two_modules_share_the_weight():
    ahead = [sure_of(COUNT + 2), sure_of(COUNT)]  # the second is wrong, at 5 positions
    loss = mtp(sure_of(COUNT + 1), ahead, torch.eye(V), LABELS, WEIGHTS, ONE, weight=0.5)
    assert loss.value.item() == pytest.approx(0.25 * 5 * 50)
    assert float(loss.weight) == 7


def test_the_last_positions_of_each_document_are_left_out():
    segments = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 0]])
    weights = torch.tensor([[1.0, 2, 0, 3, 4, 5, 0, 0]])
    labels = torch.arange(8)[None]
    targets, theirs = further(labels, weights, segments, 1)
    assert theirs.tolist() == [[2, 0, 0, 4, 5, 0, 0, 0]]
    assert targets[theirs > 0].tolist() == [1, 4, 5]
    assert further(labels, weights, segments, 2)[1].tolist() == [[0, 0, 0, 5, 0, 0, 0, 0]]


def test_what_stands_in_the_last_two_positions_is_nothing():
    hidden = torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    head = torch.randn(V, 4, generator=torch.Generator().manual_seed(1))
    mtp(hidden.detach(), [hidden], head, LABELS, WEIGHTS, ONE).value.backward()
    assert (hidden.grad[0, 6:] == 0).all() and (hidden.grad[0, :6] != 0).any(-1).all()


def test_by_the_definition():
    generator = torch.Generator().manual_seed(0)
    hidden, ahead = (torch.randn(2, 8, 4, generator=generator) for _ in range(2))
    head = torch.randn(V, 4, generator=generator)
    labels = torch.randint(V, (2, 8), generator=generator)
    weights = torch.rand(2, 8, generator=generator)
    ones = torch.ones(2, 8, dtype=torch.long)
    found = mtp(hidden, [ahead], head, labels, weights, ones, weight=0.3)
    logp = (ahead @ head.T).log_softmax(-1)
    further_on = sum(
        -weights[b, t + 1] * logp[b, t, labels[b, t + 1]] for b in range(2) for t in range(7)
    )
    main = nll(hidden, head, labels, weights).value
    torch.testing.assert_close(found.value, main + 0.3 * further_on)


def test_weight_zero_is_nll():
    hidden = torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ahead = hidden * 2
    head = torch.randn(V, 4, generator=torch.Generator().manual_seed(1))
    found = mtp(hidden, [ahead], head, LABELS, WEIGHTS, ONE, weight=0)
    (one,) = torch.autograd.grad(found.value, hidden)
    plain = nll(hidden, head, LABELS, WEIGHTS)
    (two,) = torch.autograd.grad(plain.value, hidden)
    assert torch.equal(one, two) and found.value == plain.value and found.figures == {}
