"""Products of eight bits: which layers, what they give, that they learn; imitated on a CPU."""

import pytest
import torch

from endonym.core.errors import MachineError, RecipeError
from endonym.methods.nll import nll
from endonym.model import hf
from endonym.model.config import Experts, ModelConfig
from endonym.train import adapter, optim, precision
from endonym.train.config import Adapter, TrainConfig

pytest.importorskip("torchao")

CONFIG = ModelConfig(
    vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=1, head_dim=8, tie_word_embeddings=False,
)  # fmt: skip
EXPERTS = Experts(count=4, chosen=2, width=16, shared=1)


def converted(model):
    return {name for name, each in model.named_modules() if type(each).__name__ == "Float8Linear"}


def test_which_layers_are_covered():
    """k and v have 8 rows here, which 16 does not divide; head, router and experts never."""
    model = hf.new(CONFIG.model_copy(update={"experts": EXPERTS}), seed=0)
    parameters = {name: id(each) for name, each in model.named_parameters()}
    number = precision.convert(model, emulate=True)
    layer = ["self_attn.q_proj", "self_attn.o_proj"]
    layer += [f"mlp.shared.{name}_proj" for name in ("gate", "up", "down")]
    wanted = {f"model.layers.{n}.{name}" for n in (0, 1) for name in layer}
    assert converted(model) == wanted and number == len(wanted)
    assert {name: id(each) for name, each in model.named_parameters()} == parameters


def loss_of(model, tokens):
    weights = torch.ones(tokens.shape)
    return nll(model(tokens), model.head, tokens.roll(-1, 1), weights).value / tokens.numel()


def test_it_learns_and_stays_near_whole_products():
    tokens = torch.randint(32, (4, 16), generator=torch.Generator().manual_seed(0))
    losses = {}
    for kind in ("whole", "eight"):
        model = hf.new(CONFIG, seed=0)
        if kind == "eight":
            precision.convert(model, emulate=True)
        optimizer = optim.build(model, TrainConfig(steps=9, learning_rate=1e-2))
        losses[kind] = []
        for _ in range(12):
            optimizer.zero_grad()
            loss = loss_of(model, tokens)
            loss.backward()
            optimizer.step()
            losses[kind].append(float(loss.detach()))
    assert losses["eight"][-1] < 0.7 * losses["eight"][0]
    assert losses["eight"] != losses["whole"]
    # e4m3 keeps three bits of a number: a sixteenth, and sums are better
    assert losses["eight"][-1] == pytest.approx(losses["whole"][-1], rel=0.05)


def test_reverted_it_is_the_plain_model():
    tokens = torch.arange(16)[None]
    model, plain = hf.new(CONFIG, seed=0), hf.new(CONFIG, seed=0)
    parameters = {name: id(each) for name, each in model.named_parameters()}
    precision.convert(model, emulate=True)
    assert not torch.equal(model(tokens), plain(tokens))
    precision.revert(model)
    assert not converted(model)
    assert {name: id(each) for name, each in model.named_parameters()} == parameters
    assert torch.equal(model(tokens), plain(tokens))


def test_refused_on_other_devices(monkeypatch):
    with pytest.raises(MachineError, match="Hopper"):
        precision.precision_of("float8", torch.device("cpu"), 4096)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A100")
    with pytest.raises(MachineError, match="A100"):
        precision.precision_of("float8", torch.device("cuda"), 4096)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert precision.precision_of("float8", torch.device("cuda"), 8) == torch.bfloat16


def test_refused_beside_an_adapter_and_where_nothing_fits():
    pytest.importorskip("peft")
    model = hf.new(CONFIG, seed=0)
    adapter.attach(model, Adapter(rank=2))
    with pytest.raises(RecipeError, match="adapter"):
        precision.convert(model, emulate=True)
    odd = CONFIG.model_copy(update={"hidden_size": 24, "head_dim": 4})
    with pytest.raises(RecipeError, match="multiples of 16"):
        precision.convert(hf.new(odd, seed=0), emulate=True)
