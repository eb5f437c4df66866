"""Generation between steps of training: it sees the weights as they are and leaves nothing behind."""

import pytest
import torch
from torch import nn

from endonym.core.errors import DataError, MachineError
from endonym.engine.generate import generate, stream
from endonym.engine.sampler import Sampling
from endonym.model.config import ModelConfig
from endonym.model.decode import PlainStep, PreparedStep, step_of
from endonym.model.hf import new

SAMPLING = Sampling(max_tokens=8, seed=1)
PROMPTS = [[1, 2, 3], [1, 2, 3], [4, 5]]


@pytest.fixture
def model():
    made = new(
        ModelConfig(
            vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        ),
        0,
    )  # fmt: skip
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() > 1:
                weight.mul_(15)
    return made


def gradients(model):
    model.zero_grad()
    tokens = torch.arange(12).view(2, 6)
    nn.functional.cross_entropy(
        model.logits(model(tokens)).flatten(0, 1), tokens.flatten()
    ).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def tokens(model):
    return [each.tokens for each in generate(model, PROMPTS, SAMPLING)]


@pytest.mark.parametrize("inside", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_training_goes_on_as_if_nothing_had_been_drawn(model, inside):
    before = gradients(model)
    with inside():
        drawn = tokens(model)
    assert same(before, gradients(model)) and drawn == tokens(model)
    assert all(weight.requires_grad for weight in model.parameters())


def test_under_autocast_the_weights_still_learn(model):
    with torch.autocast("cpu", torch.bfloat16):
        wanted = gradients(model)
    with torch.autocast("cpu", torch.bfloat16):
        tokens(model)
        assert same(wanted, gradients(model))
    with torch.autocast("cpu", torch.bfloat16):
        assert list(stream(model, [1, 2], SAMPLING))
        assert same(wanted, gradients(model))


def test_new_weights_are_seen(model):
    before = tokens(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    gradients(model)
    optimizer.step()
    after = tokens(model)
    fresh = new(model.config, 1)
    fresh.load_state_dict(model.state_dict())
    assert before != after == tokens(fresh)


def test_an_adapter_takes_part(model):
    peft = pytest.importorskip("peft")
    before = tokens(model)
    targets = ["q_proj", "v_proj", "down_proj"]
    peft.inject_adapter_in_model(peft.LoraConfig(r=4, target_modules=targets), model)
    assert isinstance(step_of(model, 2, 8), PlainStep)
    assert tokens(model) == before  # B is zero
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(generator=torch.Generator().manual_seed(0))
    drawn = generate(model, PROMPTS, SAMPLING)
    assert [each.tokens for each in drawn] != before
    for prompt, one in zip(PROMPTS, drawn):
        with torch.no_grad():
            logits = model.logits(model(torch.tensor([prompt + one.tokens])))[
                0, len(prompt) - 1 : -1
            ]
        told = logits.log_softmax(1).gather(1, torch.tensor(one.tokens)[:, None])[:, 0]
        assert one.raw_logprobs == pytest.approx(told.tolist(), abs=1e-4)


def test_a_layer_that_does_more_than_its_weights_say_is_run_as_it_is(model):
    assert isinstance(step_of(model, 2, 8), PreparedStep)
    layer = model.model.layers[0].mlp.down_proj
    hook = layer.register_forward_hook(lambda *_: None)
    assert isinstance(step_of(model, 2, 8), PlainStep)
    hook.remove()
    assert isinstance(step_of(model, 2, 8), PreparedStep)
    nn.utils.parametrizations.weight_norm(layer)
    assert isinstance(step_of(model, 2, 8), PlainStep)


def test_dropout_is_refused_while_it_drops(model):
    model.model.layers[0].mlp.add_module("dropout", nn.Dropout(0.1))
    model.eval()
    assert tokens(model)
    model.train()
    with pytest.raises(DataError, match="training mode"):
        tokens(model)


def test_weights_divided_among_processes_are_refused(model, tmp_path):
    distributed = torch.distributed
    if not distributed.is_available():
        pytest.skip("torch without torch.distributed")
    from torch.distributed.fsdp import fully_shard

    store = f"file://{tmp_path / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        mesh = distributed.init_device_mesh("cpu", (1,))
        fully_shard(model, mesh=mesh)
        with pytest.raises(MachineError, match="divided among processes"):
            tokens(model)
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda m: generate(m, [[1, 50]], SAMPLING), "does not know"),
        (lambda m: generate(m, [[1, -1]], SAMPLING), "does not know"),
        (lambda m: generate(m, [[1]], SAMPLING, limits=[0]), "no room"),
        (lambda m: m.model.norm.weight.data.fill_(float("nan")) is None or tokens(m), "no numbers"),
    ],
)
@pytest.mark.parametrize("settings", [dict(temperature=0), {}, dict(top_p=0.9), dict(top_k=5)])
def test_what_cannot_be_answered(model, change, message, settings, monkeypatch):
    monkeypatch.setitem(globals(), "SAMPLING", Sampling(max_tokens=8, **settings))
    with pytest.raises(DataError, match=message):
        change(model)
