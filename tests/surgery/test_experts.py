"""Experts out of dense decoders: equal ones are the dense model, the others are whose they should be."""

import pytest
import torch

from endonym.core.errors import DataError, RecipeError
from endonym.methods.nll import nll
from endonym.model.config import Experts, ModelConfig
from endonym.model.experts import collect_routing
from endonym.model.hf import new
from endonym.surgery.depth import deepen, plan_v2
from endonym.surgery.experts import likeness, to_experts

SIZES = {
    "vocab_size": 11, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
    "num_attention_heads": 2,
}  # fmt: skip
TOKENS = torch.randint(0, 11, (4, 16), generator=torch.Generator().manual_seed(0))


def dense(seed=0, **changes):
    model = new(ModelConfig(**{**SIZES, **changes}), seed).eval()
    with torch.no_grad():  # so that the MLPs matter
        for name, parameter in model.named_parameters():
            if "_proj" in name:
                parameter.mul_(6)
    return model


def parts(model, layer, number):
    experts = model.model.layers[layer].mlp.experts
    gate, up = experts.gate_up[number].chunk(2)
    return {"gate_proj": gate, "up_proj": up, "down_proj": experts.down[number]}


def is_expert(model, layer, number, source):
    return all(
        torch.equal(matrix, getattr(source.model.layers[layer].mlp, name).weight)
        for name, matrix in parts(model, layer, number).items()
    )


@pytest.mark.parametrize("chosen", [1, 2, 4])
@torch.no_grad()
def test_equal_experts_are_the_dense_model(chosen):
    model = dense()
    sparse = to_experts(model, "copies", chosen, count=4)
    torch.testing.assert_close(sparse(TOKENS), model(TOKENS), rtol=1e-5, atol=1e-5)
    same = to_experts(model, [model, model], chosen=2)
    torch.testing.assert_close(same(TOKENS), model(TOKENS), rtol=1e-5, atol=1e-5)


def test_snapshots_in_their_order_and_all_else_from_the_last():
    runs = [dense(seed) for seed in range(4)]
    sparse = to_experts(runs[3], runs)
    assert sparse.config.experts == Experts(count=4, chosen=2, width=24)
    for layer in range(3):
        assert all(is_expert(sparse, layer, number, runs[number]) for number in range(4))
    own = runs[3].state_dict()
    others = {name: t for name, t in sparse.state_dict().items() if ".mlp." not in name}
    assert others and all(torch.equal(tensor, own[name]) for name, tensor in others.items())
    assert others.keys() == {name for name in own if ".mlp." not in name}
    assert all(t.data_ptr() != own[name].data_ptr() for name, t in others.items()), "copies"


def test_noise_and_draws():
    model = dense()
    noised = to_experts(model, "copies", count=3, noise=0.1, seed=1)
    for layer in range(3):
        assert is_expert(noised, layer, 0, model), "the first stays as it was"
        for name, matrix in parts(noised, layer, 2).items():
            own = getattr(model.model.layers[layer].mlp, name).weight
            assert ((matrix - own).std() / own.std()).item() == pytest.approx(0.1, rel=0.2)
    again = to_experts(model, "copies", count=3, noise=0.1, seed=1).state_dict()
    assert all(torch.equal(t, again[name]) for name, t in noised.state_dict().items())
    other = to_experts(model, "copies", count=3, noise=0.1, seed=2)
    assert not torch.equal(parts(other, 0, 1)["up_proj"], parts(noised, 0, 1)["up_proj"])
    first, second = (
        parts(noised, 0, n)["up_proj"] - parts(noised, 0, 0)["up_proj"] for n in (1, 2)
    )
    assert not torch.equal(first, second)

    fresh = to_experts(model, "random", count=3)
    assert is_expert(fresh, 1, 0, model)
    drawn = parts(fresh, 1, 1)
    assert drawn["up_proj"].std().item() == pytest.approx(0.02, rel=0.15)
    assert drawn["down_proj"].std().item() == pytest.approx(0.02 / 6**0.5, rel=0.15)


def test_how_alike_experts_are():
    snapshots = [dense(0), dense(0), dense(1)]
    with torch.no_grad():
        for parameter in snapshots[1].parameters():
            parameter += 0.1 * parameter.std(unbiased=False) * torch.randn(parameter.shape)
    alike = likeness(to_experts(snapshots[0], snapshots[:2]))
    apart = likeness(to_experts(snapshots[0], [snapshots[0], snapshots[2]]))
    assert alike.keys() == {0, 1, 2}
    assert all(0.98 < value < 1 for value in alike.values())
    assert all(abs(value) < 0.2 for value in apart.values())
    assert all(
        value == pytest.approx(1)
        for value in likeness(to_experts(snapshots[0], "copies", count=2)).values()
    )


@torch.no_grad()
def test_the_router_spreads_the_tokens():
    sparse = to_experts(dense(), "copies", count=4)
    with collect_routing(sparse) as routes:
        sparse(TOKENS)
    for route in routes:
        assert len(route.chosen.unique()) == 4
    stds = [layer.mlp.router.weight.std().item() for layer in sparse.model.layers]
    assert stds == pytest.approx([0.02] * 3, rel=0.25)
    wide = to_experts(dense(), "copies", count=4, router_std=0.5)
    torch.testing.assert_close(
        wide.model.layers[1].mlp.router.weight, sparse.model.layers[1].mlp.router.weight * 25
    )


def test_all_of_it_learns_and_frozen_parts_stay_frozen():
    model = dense()
    model.model.embed_tokens.weight.requires_grad_(False)
    sparse = to_experts(model, "copies", count=4, noise=0.1)
    assert not sparse.model.embed_tokens.weight.requires_grad
    nll(sparse(TOKENS), sparse.head, TOKENS.roll(-1, 1), torch.ones(4, 16)).value.backward()
    for layer in sparse.model.layers:
        assert (layer.mlp.experts.gate_up.grad.flatten(1) != 0).any(1).all()
        assert (layer.mlp.router.weight.grad != 0).any()
    assert all(parameter.grad is None for parameter in model.parameters())


@torch.no_grad()
def test_jai_1_in_small_first_deeper_then_experts():
    runs = []
    for seed in (0, 1):
        base = dense(seed, num_hidden_layers=4)
        runs.append(deepen(base, *plan_v2(4, 2, [1, 2]), alpha=0.2))
    sparse = to_experts(runs[1], [runs[0], runs[1]], chosen=1)
    assert sparse.config.skips == [(4, 1)]
    assert sparse.model.skip_alpha["4"].item() == pytest.approx(0.2)
    assert is_expert(sparse, 5, 0, runs[0]) and is_expert(sparse, 5, 1, runs[1])
    assert sparse(TOKENS).isfinite().all()


@torch.no_grad()
def test_first_layers_can_stay_dense_and_types_are_kept():
    model = dense().to(torch.bfloat16)
    sparse = to_experts(model, "copies", count=2, chosen=2, first_dense=2)
    assert [hasattr(layer.mlp, "router") for layer in sparse.model.layers] == [False, False, True]
    assert {p.dtype for p in sparse.parameters()} == {torch.bfloat16} and not sparse.training
    assert torch.equal(
        sparse.model.layers[1].mlp.up_proj.weight, model.model.layers[1].mlp.up_proj.weight
    )


def test_what_cannot_be():
    model = dense()
    with pytest.raises(RecipeError, match="experts already"):
        to_experts(to_experts(model, "copies", count=2), "copies", count=2)
    with pytest.raises(RecipeError, match="mlp_bias"):
        to_experts(dense(mlp_bias=True), "copies", count=2)
    with pytest.raises(DataError, match="intermediate_size"):
        to_experts(model, [model, dense(intermediate_size=32)])
    with pytest.raises(DataError, match="num_hidden_layers"):
        to_experts(model, [model, dense(num_hidden_layers=2)])
    with pytest.raises(DataError, match="dense decoder"):
        to_experts(model, [model, to_experts(model, "copies", count=2)])
    with pytest.raises(RecipeError, match="how many"):
        to_experts(model, "copies")
    with pytest.raises(RecipeError, match="how many"):
        to_experts(model, [model, model], count=3)
    with pytest.raises(RecipeError, match="no such experts"):
        to_experts(model, "clones", count=2)
    with pytest.raises(RecipeError, match="same experts"):
        to_experts(model, "copies", count=4, router_std=0)
    with pytest.raises(RecipeError, match="chosen"):
        to_experts(model, "copies", chosen=3, count=2)
