from dataclasses import replace

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


def test_split_leaves_common_padding_out():
    ends = [13, 9, 3, 0, 24]
    segments = (torch.arange(24) < torch.tensor(ends)[:, None]).long()
    numbers = torch.arange(5 * 24).view(5, 24)
    whole = Rows(numbers, numbers, segments.float(), segments, numbers)
    parts = whole.split(2)
    assert [part.tokens.shape for part in parts] == [(2, 16), (2, 8), (1, 24)]
    assert sum(part.num_tokens for part in parts) == whole.num_tokens == sum(ends)
    assert torch.equal(parts[1].tokens, numbers[2:4, :8])


def test_extra_parts_go_along():
    plain = rows()
    assert plain.to("cpu").split(2)[0].extra == {}
    margin, states = plain.tokens / 2, plain.tokens[..., None].expand(-1, -1, 3).float()
    both = replace(plain, extra={"margin": margin, "states": states})
    parts = both.to("cpu").split(2)
    for name, whole in both.extra.items():
        assert torch.equal(torch.cat([part.extra[name] for part in parts]), whole)
    with pytest.raises(AssertionError, match="differ in shape"):
        replace(plain, extra={"margin": torch.zeros(3, 5)})


def test_parts_of_unequal_shape_are_refused():
    with pytest.raises(AssertionError, match="differ in shape"):
        Rows(*[torch.zeros(2, 3)] * 4, torch.zeros(2, 4))


def test_methods_by_name():
    assert method("nll") is nll
    assert all(callable(method(name)) for name in METHODS)
    with pytest.raises(LookupError, match=r"known: .*nll"):
        method("nnl")
