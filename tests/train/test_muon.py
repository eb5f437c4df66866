"""Muon against torch's on matrices, expert by expert on stacks, whole where it is sharded."""

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from endonym.model import hf
from endonym.model.config import Experts, ModelConfig
from endonym.train import muon
from train import two_ranks

SHAPES = [(8, 8), (8, 24), (24, 8), (24, 8), (6, 10)]


def parameters(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def set_gradients(some, seed):
    generator = torch.Generator().manual_seed(seed)
    for each in some:
        each.grad = torch.randn(each.shape, generator=generator)


@pytest.mark.parametrize("adjust", ["match_rms_adamw", "original"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_on_matrices_it_is_torchs(adjust, nesterov):
    ours, theirs = parameters(SHAPES), parameters(SHAPES)
    settings = {
        "lr": 1e-2,
        "weight_decay": 0.3,
        "momentum": 0.9,
        "nesterov": nesterov,
        "ns_steps": 4,
    }
    mine = muon.Muon([(each, 1) for each in ours], **settings, adjust=adjust)
    torchs = torch.optim.Muon(theirs, **settings, adjust_lr_fn=adjust)
    for step in range(4):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        mine.step()
        torchs.step()
    for a, b in zip(ours, theirs):
        # float32; the products in bfloat16 are the same ones, side by side
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_each_expert_and_each_fused_half_is_a_matrix_by_itself():
    stack, apart = parameters([(3, 8, 5)])[0], parameters([(4, 5)] * 6)
    for number, each in enumerate(apart):
        expert, half = divmod(number, 2)
        each.data = stack.data[expert, 4 * half : 4 * half + 4].clone()
    mine = muon.Muon([(stack, 2)], lr=0.1)
    single = torch.optim.Muon(apart, lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(2):
        set_gradients([stack], step)
        for number, each in enumerate(apart):
            expert, half = divmod(number, 2)
            each.grad = stack.grad[expert, 4 * half : 4 * half + 4].clone()
        mine.step()
        single.step()
    found = stack.detach().view(6, 4, 5)
    torch.testing.assert_close(found, torch.stack(list(apart)).detach(), atol=1e-6, rtol=0)


def test_pieces_change_nothing(monkeypatch):
    whole, small = parameters(SHAPES), parameters(SHAPES)
    for some in (whole, small):
        set_gradients(some, 1)
    muon.Muon([(each, 1) for each in whole], lr=0.1).step()
    monkeypatch.setattr(muon, "PIECE", 1)
    muon.Muon([(each, 1) for each in small], lr=0.1).step()
    for a, b in zip(whole, small):
        assert torch.equal(a, b)


def test_the_step_has_the_root_mean_square_of_adamws():
    """Orthogonal [A, B], A <= B: squares sum to A, so its mean square is 1 / B, and the factor
    0.2 sqrt(B) leaves 0.2, up to what the iteration leaves of the singular values: 0.7 to 1.2."""
    weight = parameters([(16, 64)])[0]
    before = weight.detach().clone()
    set_gradients([weight], 3)
    muon.Muon([(weight, 1)], lr=1.0, weight_decay=0.0, dtype=torch.float32).step()
    moved = before - weight.detach()
    assert float(moved.square().mean().sqrt()) == pytest.approx(0.2, rel=0.3)
    values = torch.linalg.svdvals(moved) / (0.2 * 64**0.5)
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3


def test_a_matrix_without_gradient_stays():
    first, second = parameters([(4, 4), (4, 4)])
    before = second.detach().clone()
    set_gradients([first], 0)
    muon.Muon([(first, 1), (second, 1)], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(second, before)


CONFIG = ModelConfig(
    vocab_size=32,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
    qk_norm=True,
    attention_bias=True,
    tie_word_embeddings=False,
    experts=Experts(count=4, chosen=2, width=8, shared=1, router="sigmoid"),
)


def test_which_parameters_are_hidden_matrices():
    model = hf.new(CONFIG, seed=0)
    names = {id(each): name for name, each in model.named_parameters()}
    found = {names[id(each)]: parts for each, parts in muon.hidden_matrices(model)}
    block = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    block += [f"mlp.shared.{name}_proj" for name in ("gate", "up", "down")]
    wanted = {f"model.layers.{n}.{name}.weight": 1 for n in (0, 1) for name in block}
    wanted |= {f"model.layers.{n}.mlp.experts.down": 1 for n in (0, 1)}
    wanted |= {f"model.layers.{n}.mlp.experts.gate_up": 2 for n in (0, 1)}
    assert found == wanted


def test_routers_and_heads_of_foreign_models_are_no_hidden_matrices():
    class Foreign(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = nn.Linear(8, 4, bias=False)
            self.shared_expert_gate = nn.Linear(8, 1, bias=False)
            self.up = nn.Linear(8, 4)
            self.score = nn.Linear(8, 1, bias=False)
            self.lm_head = nn.Linear(8, 32, bias=False)
            self.stack = nn.Parameter(torch.zeros(4, 8, 8))

        @property
        def head(self):
            return self.lm_head.weight

    model = Foreign()
    found = [each for each, _ in muon.hidden_matrices(model)]
    assert {id(each) for each in found} == {id(model.up.weight), id(model.stack)}
    model.up.weight.requires_grad_(False)
    assert [each for each, _ in muon.hidden_matrices(model)] == [model.stack]


SHARDED = {
    "rows": ((6, 10), 1, [Shard(0)]),
    "rows unevenly": ((5, 4), 1, [Shard(0)]),
    "columns": ((6, 10), 1, [Shard(1)]),
    "experts": ((4, 6, 5), 2, [Shard(0)]),
    "experts unevenly": ((3, 6, 5), 2, [Shard(0)]),
    "fewer experts than ranks": ((1, 6, 5), 2, [Shard(0)]),
    "rows of experts": ((4, 6, 5), 2, [Shard(1)]),
}


def test_a_sharded_step_is_the_whole_one():
    two_ranks.run(sharded_steps)


def sharded_steps(mesh):
    shapes, parts, placements = zip(*SHARDED.values())
    whole, sharded = parameters(shapes), []
    for each, how in zip(whole, placements):
        sharded.append(nn.Parameter(distribute_tensor(each.detach().clone(), mesh, how)))
    one, many = (muon.Muon(list(zip(some, parts)), lr=0.1) for some in (whole, sharded))
    turned, newton_schulz = [], muon.newton_schulz

    def counted(matrices, steps):
        turned.append(len(matrices))
        return newton_schulz(matrices, steps)

    muon.newton_schulz = counted  # in a process of the test's own
    for step in range(2):
        set_gradients(whole, step)
        for a, b in zip(whole, sharded):
            b.grad = distribute_tensor(a.grad, mesh, b.placements)
        one.step()
        alone = sum(turned)
        many.step()
        assert sum(turned) - alone < 0.7 * alone  # about half of it on each of the two
        turned.clear()
    for name, a, b in zip(SHARDED, whole, sharded):
        assert name.startswith("fewer") or b.to_local().numel() < a.numel(), name
        torch.testing.assert_close(b.full_tensor(), a.detach(), atol=1e-6, rtol=0, msg=name)


def test_experts_sharded_over_one_mesh_and_rows_over_another():
    two_ranks.run(sharded_twice)


def sharded_twice(_):
    mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("expert", "shard"))
    (whole,) = parameters([(4, 6, 5)])
    sharded = nn.Parameter(distribute_tensor(whole.detach().clone(), mesh, [Shard(0), Shard(1)]))
    set_gradients([whole], 0)
    sharded.grad = distribute_tensor(whole.grad, mesh, sharded.placements)
    for each in (whole, sharded):
        muon.Muon([(each, 2)], lr=0.1).step()
    torch.testing.assert_close(sharded.full_tensor(), whole.detach(), atol=1e-6, rtol=0)
