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


def test_clipping_by_hand():
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]

    def gradients(limit):
        parameters[0].grad, parameters[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
        return float(optim.clip(parameters, limit)), [float(p.grad) for p in parameters]

    assert gradients(0) == (5.0, [3.0, 4.0])
    assert gradients(10) == (5.0, [3.0, 4.0])
    norm, clipped = gradients(1.0)
    assert norm == 5.0
    assert clipped == pytest.approx([0.6, 0.8], abs=1e-6)  # torch's 1e-6 in the denominator
    optim.divide(parameters, 2.0)
    assert [float(p.grad) for p in parameters] == pytest.approx([0.3, 0.4], abs=1e-6)
