"""Parameter groups, clipping by hand, fused AdamW against its definition, states of eight bits."""

import math

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from endonym.core.errors import MachineError, RecipeError
from endonym.train import eight_bit, optim
from train import two_ranks
from train.drill import Tiny, settings


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
        optim.build(Tiny().bfloat16(), settings())


def test_one_step_is_the_equation():
    weight = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        weight.weight.copy_(torch.tensor([[1.0, -2.0]]))
    optimizer = optim.build(weight, settings(learning_rate=0.1, weight_decay=0.5))
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


def test_the_norm_is_whole_over_ranks_meshes_and_what_all_hold_alike():
    """Both ranks have the same numbers: sharded ones count twice, the others once."""
    two_ranks.run(norm_over_meshes)


def norm_over_meshes(mesh):
    other = init_device_mesh("cpu", (2,), mesh_dim_names=("expert",))
    kinds = [
        (torch.full((2, 3), 1.0), None),  # 6 ones, alike on all ranks
        (torch.full((2, 3), 2.0), (mesh, [Replicate()])),  # 6 twos
        (torch.full((2, 3), 3.0), (mesh, [Shard(0)])),  # 6 threes here, 6 there
        (torch.full((1, 5), 4.0), (other, [Shard(1)])),  # 5 fours here, 5 there
    ]
    parameters = []
    for value, how in kinds:
        whole = value if how is None else DTensor.from_local(value, *how, run_check=False)
        parameters.append(nn.Parameter(torch.zeros_like(whole)))
        parameters[-1].grad = whole.clone()
    norm = math.sqrt(6 * 1 + 6 * 4 + 12 * 9 + 10 * 16)
    assert optim.mean_and_clip(parameters, 2.0, norm / 4) == pytest.approx(norm / 2, rel=1e-6)
    for parameter, (value, _) in zip(parameters, kinds):
        grad = parameter.grad
        here = grad.to_local() if isinstance(grad, DTensor) else grad
        torch.testing.assert_close(here, value / 4, rtol=1e-5, atol=0)  # the mean's half


def test_muon_and_adamw_are_one_optimizer():
    model = Tiny()
    names = {id(each): name for name, each in model.named_parameters()}
    optimizer = optim.build(model, settings(optimizer="muon"))
    members = [[names[id(each)] for each in group["params"]] for group in optimizer.param_groups]
    assert members == [
        ["layer.weight"],
        ["embed_tokens.weight", "norm.weight", "norm.bias", "layer.bias"],
    ]
    assert [group["rate_share"] for group in optimizer.param_groups] == [1.0, 1.0]
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    for each in model.parameters():
        each.grad = torch.ones_like(each)
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    optimizer.step()
    # AdamW's first step is the rate, whatever the gradient; nothing here but the layer decays
    for name in members[1]:
        moved = before[name] - dict(model.named_parameters())[name].detach()
        torch.testing.assert_close(moved, torch.full_like(moved, 0.5), rtol=1e-5, atol=1e-6)
    keys = {names[id(each)]: set(found) for each, found in optimizer.state.items()}
    assert keys["layer.weight"] == {"momentum_buffer"}
    assert keys["norm.bias"] == {"exp_avg", "exp_avg_sq", "step"}
    optimizer.zero_grad()
    assert all(each.grad is None for each in model.parameters())


def test_muon_needs_a_hidden_matrix():
    with pytest.raises(RecipeError, match="no hidden matrix"):
        optim.build(nn.Embedding(4, 4), settings(optimizer="muon"))


def test_offload_is_refused_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MachineError, match="no GPU"):
        optim.build(Tiny(), settings(), offload=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    optim.build(Tiny(), settings(), offload=True)  # what lies in the CPU's memory may stay there
    with pytest.raises(AssertionError, match="shard the model first"):
        optim.build(Tiny().to("meta"), settings(), offload=True)


def wide():
    """One weight large enough for eight bits (64 x 64), and a bias that is not."""
    torch.manual_seed(0)
    return nn.Linear(64, 64)


def stepped(model, optimizer, steps):
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 / (1 + step)  # the loop sets a plain number
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("kind", ["adamw8bit", "adamw", "muon"])
def test_a_state_written_and_read_goes_on_bitwise(kind):
    whole, first, second = wide(), wide(), wide()
    optimizer = optim.build(whole, settings(optimizer=kind))
    stepped(whole, optimizer, range(5))
    optimizer = optim.build(first, settings(optimizer=kind))
    stepped(first, optimizer, range(3))
    again = optim.build(second, settings(optimizer=kind))
    for mine, theirs in zip(second.parameters(), first.parameters()):
        mine.data.copy_(theirs.data)
        written = eight_bit.to_tensors(optimizer.state[theirs])
        assert all(type(value) is torch.Tensor for value in written.values())
        if kind == "adamw8bit" and mine.ndim == 2:
            assert written["exp_avg.codes"].dtype == torch.uint8
            assert written["exp_avg.scale"].shape == (64 * 64 // 256,)
        copied = {key: value.clone() for key, value in written.items()}
        again.state[mine] = eight_bit.from_tensors(mine, copied)
    stepped(second, again, range(3, 5))
    for mine, theirs in zip(second.parameters(), whole.parameters()):
        assert torch.equal(mine, theirs)


def test_eight_bits_stay_near_adamw():
    ours, theirs = wide(), wide()
    stepped(ours, optim.build(ours, settings(optimizer="adamw8bit")), range(4))
    stepped(theirs, optim.build(theirs, settings()), range(4))
    # Steps of 0.01 and less: as large where m and v are large, off where v rounds to a low code.
    assert 0 < float((ours.weight - theirs.weight).detach().abs().max()) < 5e-3
    torch.testing.assert_close(ours.bias, theirs.bias, atol=1e-6, rtol=0)  # float32 all along


def test_eight_bits_of_sharded_weights_are_saved_whole():
    two_ranks.run(eight_bits_sharded)


def eight_bits_sharded(mesh):
    def fresh(rows):
        weight = torch.arange(rows * 64.0).view(rows, 64) / (rows * 64)
        model = nn.Linear(64, rows, bias=False)
        model.weight = nn.Parameter(distribute_tensor(weight, mesh, [Shard(0)]))
        return model, optim.build(model, settings(optimizer="adamw8bit"))

    def stepped(model, optimizer, step):
        grad = torch.randn(model.weight.shape, generator=torch.Generator().manual_seed(step))
        model.weight.grad = distribute_tensor(grad, mesh, [Shard(0)])
        optimizer.step()

    model, optimizer = fresh(128)  # 4096 numbers on each rank
    stepped(model, optimizer, 0)
    written = eight_bit.to_tensors(optimizer.state[model.weight])
    whole = {key: each.full_tensor() for key, each in written.items() if isinstance(each, DTensor)}
    assert whole["exp_avg.codes"].shape == (128, 64) and whole["exp_avg.scale"].shape == (32,)
    again, other = fresh(128)
    again.weight.data.copy_(model.weight.data)
    read = {key: distribute_tensor(each, mesh, [Shard(0)]) for key, each in whole.items()}
    other.state[again.weight] = eight_bit.from_tensors(again.weight, {**written, **read})
    for each in ((model, optimizer), (again, other)):
        stepped(*each, 1)
    assert torch.equal(model.weight.full_tensor(), again.weight.full_tensor())

    with pytest.raises(MachineError, match="evenly"):
        fresh(129)  # 65 rows, which blocks do not divide, and 64, which they do
