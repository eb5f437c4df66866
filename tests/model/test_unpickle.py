"""Pickled weights become safetensors on request; what is no tensor is refused and nothing is run."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from endonym.cli import app
from endonym.core.errors import DataError
from endonym.model import hf
from endonym.model.config import ModelConfig
from endonym.model.unpickle import convert


def model():
    return hf.new(
        ModelConfig(
            vocab_size=19, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
        ),
        3,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A model folder whose weights are pickled, as transformers 4 wrote them."""
    hf.save(model(), tmp_path / "old")
    file = tmp_path / "old" / "model.safetensors"
    from safetensors.torch import load_file

    torch.save(load_file(file), file.with_name("pytorch_model.bin"))
    file.unlink()
    return tmp_path / "old"


def test_converted_weights_are_the_same_bits(folder, tmp_path):
    with pytest.raises(DataError, match="pickled"):
        hf.load(folder)
    figures = convert(folder, tmp_path / "new")
    loaded = hf.load(tmp_path / "new")
    for name, weight in model().state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)
    assert figures["files"] == 1 and figures["tensors"] == len(model().state_dict())
    assert not list((tmp_path / "new").glob("*.bin"))


def test_shards_and_shared_tensors(folder, tmp_path):
    whole = torch.load(folder / "pytorch_model.bin")
    names = sorted(whole)
    one, two = {n: whole[n] for n in names[:5]}, {n: whole[n] for n in names[5:]}
    (folder / "pytorch_model.bin").unlink()
    torch.save(one, folder / "a.bin")
    torch.save(two, folder / "b.bin")
    index = {n: "a.bin" for n in one} | {n: "b.bin" for n in two}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    figures = convert(folder, tmp_path / "new", shard_bytes=2000)
    assert figures["files"] > 1
    loaded = hf.load(tmp_path / "new").state_dict()
    assert all(torch.equal(loaded[name], whole[name]) for name in names)
    index["x"] = "../old/a.bin"
    (folder / "pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": index | {"y": "/etc/passwd"}})
    )
    with pytest.raises(DataError, match="not in the folder"):
        convert(folder, tmp_path / "other")


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path(self.canary),))


def test_a_pickle_that_runs_code_is_refused_and_not_run(folder, tmp_path):
    Bomb.canary = str(tmp_path / "canary")
    for content in ({"w": Bomb()}, Bomb()):
        torch.save(content, folder / "pytorch_model.bin")
        with pytest.raises(DataError, match="more than tensors"):
            convert(folder, tmp_path / "new")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match="more than tensors"):
        convert(folder, tmp_path / "new")
    assert not (tmp_path / "canary").exists() and not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".*partial"))


@pytest.mark.parametrize("content", [{"w": 3}, [torch.zeros(2)], {1: torch.zeros(2)}])
def test_what_is_no_dictionary_of_tensors(folder, tmp_path, content):
    torch.save(content, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="no dictionary of tensors"):
        convert(folder, tmp_path / "new")


def test_nothing_is_overwritten_and_nothing_to_convert_is_said(folder, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine.txt").touch()
    with pytest.raises(DataError, match="not empty"):
        convert(folder, tmp_path / "new")
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(DataError, match="no pickled weights"):
        convert(folder, tmp_path / "other")


def test_the_command(folder, tmp_path):
    words = ["convert", str(folder), "--out", str(tmp_path / "new"), "--json"]
    told = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    assert told["figures"]["files"] == 1


def test_a_plain_form_of_a_model_with_skips(tmp_path):
    from endonym.surgery.depth import deepen, plan_v2

    sources, skips = plan_v2(2, 1, [1, 2])
    hf.save(deepen(model(), sources, skips, alpha=0.5), tmp_path / "skips")
    words = [
        "convert",
        str(tmp_path / "skips"),
        "--plain",
        "--out",
        str(tmp_path / "new"),
        "--json",
    ]
    told = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    assert told["figures"]["architecture"] == "LlamaForCausalLM"
    assert "skips" in told["figures"]["left_out"]
    plain = hf.load(tmp_path / "new")
    assert plain.config.skips == [] and plain.config.num_hidden_layers == 3
