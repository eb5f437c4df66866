"""Parameter groups, clipping by hand, and fused AdamW against its definition."""

import pytest
import torch
from torch import nn

from endonym.core.errors import RecipeError
from endonym.train import optim
from train.drill import Tiny


def test_only_matrices_that_multiply_activations_decay():
    model = Tiny()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, plain = optim.parameter_groups(model, 0.1)
    assert [names[id(p)] for p in decayed["params"]] == ["layer.weight"]
    assert [names[id(p)] for p in plain["params"]] == [
        "embed_tokens.weight",
        "norm.weight",
        "norm.bias",
        "layer.bias",
    ]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)


def test_frozen_parameters_are_left_out_and_bf16_weights_refused():
    model = Tiny()
    model.layer.weight.requires_grad_(False)
    assert len(optim.parameter_groups(model, 0.1)) == 1
    with pytest.raises(RecipeError, match="float32 master weights"):
        optim.adamw(Tiny().bfloat16(), learning_rate=1.0)


def test_one_step_is_the_equation():
    weight = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        weight.weight.copy_(torch.tensor([[1.0, -2.0]]))
    optimizer = optim.adamw(weight, learning_rate=0.1, weight_decay=0.5)
    weight.weight.grad = torch.tensor([[3.0, -4.0]])
    optimizer.step()
    # After the first step m^ / sqrt(v^) is the gradient's sign: w - 0.1 (sign + 0.5 w)
    wanted = torch.tensor([[1 - 0.1 * (1 + 0.5), -2 - 0.1 * (-1 - 1.0)]])
    torch.testing.assert_close(weight.weight.data, wanted, atol=1e-6, rtol=0)  # float32


def test_the_mean_and_clipping_by_hand():
    parameters = [
        nn.Parameter(torch.zeros(1)),
        nn.Parameter(torch.zeros(1)),
        nn.Parameter(torch.zeros(1)),
    ]

    def gradients(weight, limit):
        parameters[0].grad, parameters[1].grad = torch.tensor([6.0]), torch.tensor([8.0])
        norm = optim.mean_and_clip(parameters, weight, limit)
        return norm, [float(p.grad) for p in parameters[:2]]

    assert gradients(2.0, 0) == (5.0, [3.0, 4.0])
    assert gradients(2.0, 10) == (5.0, [3.0, 4.0])
    norm, clipped = gradients(2.0, 1.0)
    assert norm == 5.0
    assert clipped == pytest.approx([0.6, 0.8], abs=1e-6)  # torch's 1e-6 in the denominator
    assert optim.mean_and_clip(parameters[2:], 1.0, 1.0) == 0.0


def test_clipping_is_torchs():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = ([nn.Parameter(torch.zeros(3, 4)) for _ in range(3)] for _ in range(2))
    for a, b in zip(ours, theirs):
        a.grad = torch.randn(3, 4, generator=generator) * 7
        b.grad = a.grad / 7
    norm = optim.mean_and_clip(ours, 7.0, 0.5)
    assert norm == pytest.approx(float(nn.utils.clip_grad_norm_(theirs, 0.5)), rel=1e-6)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=0)  # float32
