import pytest
import torch

from endonym.methods.batch import Rows
from endonym.methods.nll import nll
from endonym.methods.table import METHODS, method


def rows():
    numbers = torch.arange(12).view(3, 4)
    segments = torch.tensor([[1, 1, 2, 2], [1, 1, 1, 0], [1, 0, 0, 0]])
    return Rows(numbers, numbers + 1, numbers.float(), segments, numbers % 4)


def test_tokens_are_counted_without_padding():
    assert rows().num_tokens == 8


def test_split_keeps_order_and_everything():
    parts = rows().split(2)
    assert [len(part) for part in parts] == [2, 1]
    for name in ("tokens", "labels", "weights", "segments", "positions"):
        whole = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(whole, getattr(rows(), name))


def test_parts_of_unequal_shape_are_refused():
    with pytest.raises(AssertionError, match="differ in shape"):
        Rows(*[torch.zeros(2, 3)] * 4, torch.zeros(2, 4))


def test_methods_by_name():
    assert method("nll") is nll
    assert all(callable(method(name)) for name in METHODS)
    with pytest.raises(LookupError, match="known: nll"):
        method("nnl")
