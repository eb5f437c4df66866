"""Folders that cannot be read or written: one clear error each, and what stood there still stands."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from endonym.core.errors import DataError, EndonymError, MachineError
from endonym.model import hf
from endonym.model.checkpoint import write_aside, write_json
from endonym.model.config import ModelConfig

CONFIG = ModelConfig(
    vocab_size=11, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
)


@pytest.fixture
def folder(tmp_path):
    hf.save(hf.new(CONFIG, 0), tmp_path / "model")
    return tmp_path / "model"


def change(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        hf.load(tmp_path / "absent")


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="pickle"):
        hf.load(folder)
    raw = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**raw, "hidden_act": "gelu"})  # the way of the fallback
    with pytest.raises(DataError, match="pickle"):
        hf.load(folder)


def test_weights_cut_short(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="damaged, cut short or lies"):
        hf.load(folder)


def test_shard_missing(folder):
    shard = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    write_json(folder / "model.safetensors.index.json", shard)
    with pytest.raises(DataError, match="00001-of-00002"):
        hf.load(folder)


def test_config_that_is_not_json(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        hf.load(folder)


def test_weight_missing_unknown_or_of_another_shape(folder):
    change(folder, lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(DataError, match=r"missing[\s\S]*model.norm.weight"):
        hf.load(folder)
    change(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(3)}))
    with pytest.raises(DataError, match=r"another shape[\s\S]*\(16,\)[\s\S]*\(3,\)"):
        hf.load(folder)
    whole = {
        "model.norm.weight": torch.ones(16),
        "model.layers.9.mlp.up_proj.weight": torch.ones(1),
    }
    change(folder, lambda tensors: tensors.update(whole))
    with pytest.raises(DataError, match=r"no place for[\s\S]*layers.9"):
        hf.load(folder)


def test_weights_are_whole_or_absent(tmp_path):
    (tmp_path / "file").write_text("before")

    def half(aside):
        aside.write_text("af")
        raise OSError(28, "No space left on device")

    with pytest.raises(MachineError, match="No space left"):
        write_aside(tmp_path / "file", half)
    assert (tmp_path / "file").read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_config_comes_last(tmp_path, monkeypatch):
    def no_weights(*_):
        raise EndonymError("stop")

    monkeypatch.setattr(hf, "write_weights", no_weights)
    with pytest.raises(EndonymError):
        hf.save(hf.new(CONFIG, 0), tmp_path)
    assert not (tmp_path / "config.json").exists()
