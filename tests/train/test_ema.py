"""The average against its closed form, applied and taken back, saved and read, sharded."""

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from endonym.train.ema import Ema
from train import two_ranks
from train.drill import Tiny

DECAY = 0.8


def weights_after(model, steps):
    """Sets other weights step by step; each step's weights are given back, after the update."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for each in model.parameters():
                each.copy_(torch.randn(each.shape, generator=generator))
        yield {name: each.detach().clone() for name, each in model.named_parameters()}


def trained(model, average, steps):
    history = []
    for weights in weights_after(model, steps):
        average.update(model)
        history.append(weights)
    return history


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_closed_form(steps):
    model = Tiny()
    average = Ema(model, DECAY)
    history = trained(model, average, range(steps))
    shares = [(1 - DECAY) * DECAY ** (steps - 1 - step) for step in range(steps)]
    assert sum(shares) == pytest.approx(1 - DECAY**steps)
    with average.applied(model):
        for name, found in model.named_parameters():
            wanted = sum(share * each[name].double() for share, each in zip(shares, history))
            wanted = (wanted / sum(shares)).float()
            torch.testing.assert_close(found.detach(), wanted, atol=1e-6, rtol=0)  # float32


def test_applied_and_taken_back_even_after_an_error():
    model = Tiny()
    average = Ema(model, DECAY)
    start = {name: each.detach().clone() for name, each in model.named_parameters()}
    with average.applied(model):  # before the first update: the weights as they were
        assert all(torch.equal(each, start[name]) for name, each in model.named_parameters())
    (last,) = trained(model, average, [1])
    (last,) = trained(model, average, [2])
    before = {name: each.clone() for name, each in average.tensors().items()}
    with pytest.raises(KeyError), average.applied(model):
        assert not torch.equal(model.layer.weight, last["layer.weight"])
        raise KeyError
    assert all(torch.equal(each, last[name]) for name, each in model.named_parameters())
    assert all(torch.equal(each, before[name]) for name, each in average.tensors().items())


def test_given_for_good():
    model = Tiny()
    average = Ema(model, DECAY)
    trained(model, average, range(3))
    with average.applied(model):
        wanted = {name: each.detach().clone() for name, each in model.named_parameters()}
    average.give(model)
    assert all(torch.equal(each, wanted[name]) for name, each in model.named_parameters())


def test_the_optimizers_parameters_stay_the_same_objects():
    model = Tiny()
    average, objects = Ema(model, DECAY), [id(each) for each in model.parameters()]
    places = [each.data_ptr() for each in model.parameters()]
    with average.applied(model):
        assert [id(each) for each in model.parameters()] == objects
    assert [each.data_ptr() for each in model.parameters()] == places


def test_frozen_weights_and_buffers_are_not_averaged():
    model = Tiny()
    model.layer.weight.requires_grad_(False)
    model.register_buffer("count", torch.zeros(3))
    names = Ema(model, DECAY).tensors()
    assert "ema/layer.weight" not in names and "ema/count" not in names
    assert "ema/layer.bias" in names


def test_what_was_saved_goes_on_bitwise():
    whole, broken, again = Tiny(), Tiny(), Tiny(seed=5)
    one, two, three = Ema(whole, DECAY), Ema(broken, DECAY), Ema(again, DECAY)
    trained(whole, one, range(5))
    trained(broken, two, range(3))
    for name, each in three.tensors().items():  # as a checkpoint is put back, in place
        each.copy_(two.tensors()[name])
    trained(again, three, range(3, 5))
    for name, each in one.tensors().items():
        assert torch.equal(each, three.tensors()[name]), name


def test_sharded_weights_and_whole_ones_together():
    two_ranks.run(sharded)


def sharded(mesh):
    whole, split = Tiny(), Tiny()
    weight = distribute_tensor(split.layer.weight.detach(), mesh, [Shard(0)])
    split.layer.weight = nn.Parameter(weight)
    one, two = Ema(whole, DECAY), Ema(split, DECAY)
    for _ in weights_after(whole, range(3)):
        one.update(whole)
        with torch.no_grad():
            for a, b in zip(split.parameters(), whole.parameters()):
                b = distribute_tensor(b.detach(), mesh, [Shard(0)]) if isinstance(a, DTensor) else b
                a.copy_(b)
        two.update(split)
    with one.applied(whole), two.applied(split):
        assert isinstance(two.tensors()["ema/layer.weight"], DTensor)
        assert torch.equal(split.layer.weight.full_tensor(), whole.layer.weight.detach())
        assert torch.equal(split.layer.bias, whole.layer.bias)
