"""Adapters: where they stand, that the base stays, exact resume, PEFT's own reading, merging."""

import json

import pytest
import torch

from endonym.core.errors import MachineError, RecipeError
from endonym.methods.nll import nll
from endonym.model import hf, reward
from endonym.train import adapter, optim
from endonym.train.config import Adapter, TrainConfig
from model.oracle import oracle

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8, 9, 7, 9, 3]])
PLAIN = Adapter(rank=2, alpha=8, dropout=0.0)


def trained(model, steps=range(3), seed=0):
    """A few steps on a batch, each with its own random numbers, as the loop does it."""
    optimizer = optim.build(model, TrainConfig(steps=9, learning_rate=1e-2))
    model.train()
    for step in steps:
        torch.manual_seed(1000 * seed + step)
        optimizer.zero_grad()
        hidden = model(TOKENS)
        labels, weights = TOKENS.roll(-1, 1), torch.ones(TOKENS.shape)
        nll(hidden, model.head, labels, weights).value.backward()
        optimizer.step()
    model.eval()
    return optimizer


@torch.no_grad()
def logits(model):
    return model.logits(model(TOKENS))


def weights_of(model):
    return {name: each.detach().clone() for name, each in model.named_parameters()}


@pytest.mark.parametrize(
    "kind", ["llama", "qwen3", "phi3", "exaone_moe", "solar_open", "hyperclovax"]
)
def test_peft_reads_it_over_the_exported_base(kind, tmp_path):
    oracle(kind, tmp_path / "base")
    model = hf.load(tmp_path / "base")
    before = logits(model)
    adapter.attach(model, PLAIN)
    assert torch.equal(logits(model), before)  # B is zero
    trained(model)
    ours = logits(model)
    assert float((ours - before).abs().max()) > 1e-2
    adapter.save_adapter(model, tmp_path / "adapter")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    learned = [name for name, _ in theirs.named_parameters() if ".lora_" in name]
    torch.testing.assert_close(theirs(TOKENS).logits, ours, atol=1e-5, rtol=0)  # float32
    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    named = written["target_modules"] + (written["target_parameters"] or [])
    assert 2 * len(named) == len(learned)

    adapter.merge_into(model)
    torch.testing.assert_close(logits(model), ours, atol=1e-5, rtol=0)
    hf.save(model, tmp_path / "merged")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(again(TOKENS).logits, ours, atol=1e-5, rtol=0)


def test_only_the_adapter_learns_and_where_it_stands(tmp_path):
    oracle("exaone_moe", tmp_path)
    model = hf.load(tmp_path)
    before = weights_of(model)
    adapter.attach(model, PLAIN)
    learning = {name for name, each in model.named_parameters() if each.requires_grad}
    beside = {name.partition(".lora_")[0].rpartition(".")[2] for name in learning}
    assert all(".lora_" in name for name in learning)
    assert beside == {f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")}
    assert not any(
        part in name for name in learning for part in ("experts", "router", "head", "mtp")
    )
    assert any(".mlp.shared." in name for name in learning)
    trained(model)
    for name, each in model.named_parameters():
        plain = name.replace(".base_layer.", ".")
        assert plain not in before or torch.equal(each, before[plain]), name


def test_named_targets_and_unknown_ones(tmp_path):
    oracle("llama", tmp_path)
    model = hf.load(tmp_path)
    adapter.attach(model, PLAIN.model_copy(update={"targets": ["q_proj", "layers.1.mlp.up_proj"]}))
    beside = {
        name.partition(".lora_")[0] for name, _ in model.named_parameters() if "lora_" in name
    }
    layers = range(model.config.num_hidden_layers)
    wanted = {f"model.layers.{n}.self_attn.q_proj" for n in layers}
    assert beside == wanted | {"model.layers.1.mlp.up_proj"}
    for bad in (["lm_head"], ["q_proj", "c_attn"]):
        with pytest.raises(RecipeError, match=r"all-linear alone, or some of down_proj"):
            adapter.attach(hf.load(tmp_path), PLAIN.model_copy(update={"targets": bad}))


def test_the_seed_alone_decides_the_first_matrices(tmp_path):
    oracle("llama", tmp_path)
    found = []
    for state, seed in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(state)
        model = hf.load(tmp_path)
        adapter.attach(model, PLAIN, seed)
        assert torch.equal(torch.rand(1), torch.manual_seed(state) and torch.rand(1))
        found.append(model.model.layers[0].self_attn.q_proj.lora_A["default"].weight)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])


def test_dropout_follows_the_steps_seed(tmp_path):
    """Steps 0, 1, 2 in one go, and 2 resumed from what had been learned by then: the same bits."""
    oracle("llama", tmp_path)
    ends = []
    for cuts in ([range(3)], [range(2), range(2, 3)]):
        model = hf.load(tmp_path)
        adapter.attach(model, PLAIN.model_copy(update={"dropout": 0.3}))
        state = None
        for steps in cuts:
            torch.manual_seed(77)  # what ran in between must not matter
            if state:
                kept, again = state, hf.load(tmp_path)
                adapter.attach(again, PLAIN.model_copy(update={"dropout": 0.3}), seed=5)
                again.load_state_dict(kept)
                model = again
            trained_plainly(model, steps)
            state = {name: each.clone() for name, each in model.state_dict().items()}
        ends.append(state)
    assert all(torch.equal(each, ends[1][name]) for name, each in ends[0].items())


def trained_plainly(model, steps):
    """SGD, which has no state, so that only weights and random numbers matter."""
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], 0.1)
    model.train()
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad()
        nll(
            model(TOKENS), model.head, TOKENS.roll(-1, 1), torch.ones(TOKENS.shape)
        ).value.backward()
        optimizer.step()


def test_merged_inside_and_bitwise_the_same_outside(tmp_path):
    oracle("llama", tmp_path / "base")
    model = hf.load(tmp_path / "base")
    names = set(model.state_dict())
    adapter.attach(model, PLAIN)
    trained(model)
    before, ours = weights_of(model), logits(model)
    with adapter.merged(model):
        assert set(model.state_dict()) == names
        torch.testing.assert_close(logits(model), ours, atol=1e-5, rtol=0)  # float32
        hf.save(model, tmp_path / "out")
    after = weights_of(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(each, after[name]) for name, each in before.items())
    assert torch.equal(logits(model), ours)
    torch.testing.assert_close(logits(hf.load(tmp_path / "out")), ours, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases_that_learn_are_in_the_adapter(bias, tmp_path):
    oracle("qwen2", tmp_path / "base")
    model = hf.load(tmp_path / "base")
    adapter.attach(model, PLAIN.model_copy(update={"bias": bias}))
    trained(model)
    assert model.model.layers[0].self_attn.q_proj.base_layer.bias.grad is not None
    ours = logits(model)
    adapter.save_adapter(model, tmp_path / "adapter")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    torch.testing.assert_close(theirs(TOKENS).logits, ours, atol=1e-5, rtol=0)
    adapter.merge_into(model)
    torch.testing.assert_close(logits(model), ours, atol=1e-5, rtol=0)


def test_a_foreign_model(tmp_path):
    oracle("llama", tmp_path / "base")
    model = hf.load(tmp_path / "base", native=False)
    own = hf.load(tmp_path / "base")
    for each in (model, own):
        adapter.attach(each, PLAIN)
        trained(each)
    ours = logits(model)
    torch.testing.assert_close(
        logits(own), ours, atol=1e-4, rtol=0
    )  # two forward passes, three steps
    adapter.save_adapter(model, tmp_path / "adapter")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    torch.testing.assert_close(theirs(TOKENS).logits, ours, atol=1e-5, rtol=0)
    adapter.merge_into(model)
    hf.save(model, tmp_path / "merged")
    torch.testing.assert_close(logits(hf.load(tmp_path / "merged")), ours, atol=1e-5, rtol=0)


@pytest.mark.parametrize("native", [True, False])
def test_four_bits_below_and_whole_weights_at_the_end(native, tmp_path):
    pytest.importorskip("bitsandbytes")
    oracle("llama", tmp_path / "base", hidden_size=64, intermediate_size=128)
    model = hf.load(tmp_path / "base", native=native)
    before = weights_of(model)
    adapter.attach(
        model, PLAIN.model_copy(update={"method": "qlora", "targets": ["q_proj", "up_proj"]})
    )
    small = [each for each in model.parameters() if each.dtype == torch.uint8]
    layers = 7 * model.config.num_hidden_layers
    assert len(small) == layers and not any(each.requires_grad for each in small)
    trained(model)
    ours = logits(model)
    adapter.save_adapter(model, tmp_path / "adapter")
    adapter.merge_into(model)
    assert {each.dtype for each in model.parameters()} == {torch.float32}
    name = next(name for name in before if name.endswith("0.mlp.down_proj.weight"))
    off = (dict(model.named_parameters())[name] - before[name]).abs().max()
    # NF4's values are at most 0.31 of a block's largest number apart
    assert 0 < float(off) < 0.16 * float(before[name].abs().max())
    torch.testing.assert_close(logits(model), ours, atol=1e-5, rtol=0)  # float32 products
    hf.save(model, tmp_path / "merged")
    torch.testing.assert_close(logits(hf.load(tmp_path / "merged")), ours, atol=1e-5, rtol=0)


def test_four_bits_are_refused_where_they_would_be_wrong(tmp_path):
    """With 48 inputs bitsandbytes gives numbers back that are off by more than NF4's largest step."""
    pytest.importorskip("bitsandbytes")
    oracle("llama", tmp_path)
    with pytest.raises(RecipeError, match="64 divides"):
        adapter.attach(hf.load(tmp_path), PLAIN.model_copy(update={"method": "qlora"}))


def test_a_missing_library_is_named(monkeypatch, tmp_path):
    oracle("llama", tmp_path)

    def missing(name, extra, what):
        raise MachineError(f"{what}: {name} is not installed", do=f"pip install 'endonym[{extra}]'")

    monkeypatch.setattr(adapter, "need", missing)
    with pytest.raises(MachineError, match=r"endonym\[lora\]"):
        adapter.attach(hf.load(tmp_path), PLAIN)


def test_muon_turns_the_matrices_of_an_adapter_and_never_the_base(tmp_path):
    oracle("llama", tmp_path)
    model = hf.load(tmp_path)
    adapter.attach(model, PLAIN)
    optimizer = optim.build(model, TrainConfig(steps=9, learning_rate=1e-2, optimizer="muon"))
    names = {id(each): name for name, each in model.named_parameters()}
    found = {names[id(each)] for group in optimizer.param_groups for each in group["params"]}
    assert found == {name for name in names.values() if ".lora_" in name}


@pytest.mark.parametrize("native", [True, False])
def test_the_score_head_of_a_reward_model_learns_and_is_in_the_adapter(native, tmp_path):
    oracle("llama", tmp_path / "language")
    base = reward.start(tmp_path / "language", seed=0, native=native)
    reward.save(base, tmp_path / "base", pad_id=0)
    model = reward.load(tmp_path / "base", native=native)
    before = model.head.detach().clone()
    adapter.attach(model, PLAIN)
    learning = [each for each in model.parameters() if each.requires_grad]
    assert any(each is model.head for each in learning) and len(learning) > 1
    optimizer = torch.optim.SGD(learning, 0.1)
    (model(TOKENS) @ model.head.T).square().sum().backward()
    optimizer.step()
    model.eval()
    assert not torch.equal(model.head, before)
    with torch.no_grad():
        ours = (model(TOKENS) @ model.head.T)[:, -1]  # transformers' class: the last token's
    adapter.save_adapter(model, tmp_path / "adapter")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    torch.testing.assert_close(theirs(TOKENS).logits, ours, atol=1e-5, rtol=0)  # float32
