"""A teacher's passes: the same states in parts and in turn, and as many passes as any process needs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from endonym.rollouts.pieces import PackedPieces, answered, least_padding
from endonym.rollouts.teacher import Teacher
from eval.tiny import model


def rows(count):
    draw = np.random.default_rng(0)
    pairs = [(draw.integers(5, 300, 9 + n % 5), draw.integers(5, 300, 6)) for n in range(count)]
    pieces = [answered(prompt, answer, 1.0) for prompt, answer in pairs]
    return PackedPieces(pieces, 20, fit=least_padding).part()


def test_in_parts_it_is_what_it_is_at_once():
    """METHODS 3.4: chunked == unchunked; narrower parts are filled up."""
    teacher, whole = Teacher(model(1), torch.device("cpu")), rows(6)
    at_once = teacher.states_of([whole], whole.tokens.shape[1])
    assert at_once.shape == (*whole.tokens.shape, 32) and not at_once.requires_grad
    for size in (1, 4):
        found = teacher.states_of(whole.split(size), whole.tokens.shape[1])
        real = whole.segments > 0
        torch.testing.assert_close(found[real], at_once[real], rtol=1e-5, atol=1e-6)


def test_in_turn_it_is_on_its_device_only_meanwhile(monkeypatch):
    net, part = model(2), rows(2)
    beside = Teacher(net, torch.device("cpu")).states(part)
    teacher = Teacher(net, torch.device("cpu"), in_turn=True)
    homes = [each.data_ptr() for each in net.parameters()]
    moved, truly = [], torch.Tensor.to

    def copied(self, *given, **named):
        moved.append(self.shape)
        return truly(self, *given, **named).clone()

    monkeypatch.setattr(torch.Tensor, "to", copied)
    with pytest.raises(ZeroDivisionError), teacher.here() as here:
        monkeypatch.undo()
        assert here is net and len(moved) >= len(homes)
        assert not {each.data_ptr() for each in net.parameters()} & set(homes)
        assert torch.equal(teacher.states(part), beside)
        raise ZeroDivisionError
    assert [each.data_ptr() for each in net.parameters()] == homes


def test_a_process_with_fewer_parts_runs_as_many_passes(monkeypatch):
    """Weights that are divided are gathered in each pass, by all processes together."""
    teacher, whole = Teacher(model(1), torch.device("cpu")), rows(4)
    alone = teacher.states_of(whole.split(2), whole.tokens.shape[1])
    teacher.ranks = SimpleNamespace(largest=lambda number: number + 3)
    seen, truly = [], teacher.states

    def counted(part):
        seen.append(part.tokens.numel())
        return truly(part)

    monkeypatch.setattr(teacher, "states", counted)
    found = teacher.states_of(whole.split(2), whole.tokens.shape[1])
    assert torch.equal(found, alone)
    assert len(seen) == -(-len(whole) // 2) + 3 and seen[-3:] == [1, 1, 1]
