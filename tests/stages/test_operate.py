"""Surgery as stages: depth, experts and context on a model folder; two models merged."""

import pytest
import torch

from endonym.core.artifact import Artifact
from endonym.core.context import Context
from endonym.core.errors import RecipeError
from endonym.model import hf
from endonym.model.config import ModelConfig
from endonym.stages.merge import STAGE as MERGE
from endonym.stages.merge import MergeConfig
from endonym.stages.operate import STAGE, OperateConfig
from endonym.tokenizer.train import train

TOKENS = torch.tensor([[5, 9, 2, 40, 7, 7, 1, 30]])


@pytest.fixture(scope="module")
def words():
    return train(["one two three four five six seven eight nine ten"] * 20, 280)


@pytest.fixture
def model(tmp_path, words):
    """name -> the artifact of a tiny dense model with weights of its own."""

    def made(name, seed):
        folder = tmp_path / name
        config = ModelConfig(
            vocab_size=words.vocab_size, hidden_size=16, intermediate_size=24, num_hidden_layers=4,
            num_attention_heads=2, max_position_embeddings=64,
        )  # fmt: skip
        hf.save(hf.new(config, seed), folder, eos_ids=words.stop_ids)
        words.save(folder)
        return Artifact(folder, {"licences": [name], "address": name, "kind": "model"})

    return made


def operated(settings, tmp_path, **inputs):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    outcome = STAGE.run(OperateConfig.read(settings, "test"), Context(), out, inputs)
    return outcome, hf.load(out)


def test_one_copy_of_each_block_is_the_base(tmp_path, model):
    base = model("base", 0)
    outcome, same = operated({"depth": {"block": 2, "copies": [1, 1]}}, tmp_path, input=base)
    assert torch.equal(same(TOKENS), hf.load(base.path)(TOKENS))
    assert (outcome.figures["layers_before"], outcome.figures["layers"]) == (4, 4)


def test_blocks_are_repeated_with_skips_and_the_folder_remembers_them(tmp_path, model):
    settings = {"depth": {"block": 2, "copies": [1, 2], "alpha": 0.25, "learned": False}}
    outcome, deep = operated(settings, tmp_path, input=model("base", 0))
    assert outcome.figures["layers"] == 6
    assert deep.config.skips == [(4, 1)] and deep.config.skip_alpha == 0.25


def test_blocks_are_repeated_without_skips_where_none_are_asked_for(tmp_path, model):
    settings = {"depth": {"block": 2, "copies": [1, 2], "skip": False}}
    _, deep = operated(settings, tmp_path, input=model("base", 0))
    assert deep.config.num_hidden_layers == 6 and deep.config.skips == []


def test_first_and_last_layers(tmp_path, model):
    base = model("base", 0)
    _, deep = operated({"depth": {"keep": 3}}, tmp_path, input=base)
    old, new = hf.load(base.path).model.layers, deep.model.layers
    for place, source in enumerate([0, 1, 2, 1, 2, 3]):
        assert torch.equal(new[place].mlp.up_proj.weight, old[source].mlp.up_proj.weight)


def test_experts_of_snapshots(tmp_path, model):
    one, two = model("one", 1), model("two", 2)
    outcome, sparse = operated(
        {"experts": {"chosen": 1}}, tmp_path, input=two, snapshots={"one": one, "two": two}
    )
    assert sparse.config.experts.count == 2 and outcome.licences == ["two", "one", "two"]
    assert -0.2 < outcome.figures["expert_likeness"] < 0.2, "two seeds have nothing in common"
    gate_up = sparse.model.layers[0].mlp.experts.gate_up
    first = hf.load(one.path).model.layers[0].mlp
    assert torch.equal(gate_up[0], torch.cat([first.gate_proj.weight, first.up_proj.weight]))
    assert torch.equal(sparse.head, hf.load(two.path).head), "the rest is the input's"


def test_a_longer_context(tmp_path, model):
    settings = {"context": {"length": 128, "theta": 1e6}}
    _, longer = operated(settings, tmp_path, input=model("base", 0))
    assert longer.config.max_position_embeddings == 128 and longer.config.rope_theta == 1e6


@pytest.mark.parametrize(
    "settings, said",
    [
        ({}, "nothing to do"),
        ({"depth": {"keep": 3, "block": 2}}, "one of two ways"),
        ({"depth": {"block": 3, "copies": [1, 1]}}, "copies do not fit"),
        ({"experts": {"of": "snapshots"}}, "experts of snapshots need snapshots"),
        ({"context": {"length": 8}}, "can only be extended"),
    ],
)
def test_what_cannot_be(tmp_path, model, settings, said):
    with pytest.raises(RecipeError, match=said):
        operated(settings, tmp_path, input=model("base", 0))


def test_two_models_are_averaged(tmp_path, model):
    one, two, out = model("one", 1), model("two", 2), tmp_path / "merged"
    out.mkdir()
    rows = [{"model": name, "parameters": {"weight": 1}} for name in ("a", "b")]
    config = MergeConfig.read({"merge_method": "linear", "models": rows}, "test")
    outcome = MERGE.run(
        config, Context().at(tmp_path / "scratch"), out, {"inputs": {"a": one, "b": two}}
    )
    merged = hf.load(out)
    mean = (hf.load(one.path).head + hf.load(two.path).head) / 2
    torch.testing.assert_close(merged.head, mean, rtol=0, atol=1e-7)
    assert outcome.licences == ["one", "two"] and (out / "tokenizer.json").is_file()
