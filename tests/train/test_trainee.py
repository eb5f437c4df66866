"""What a run gives away (an average, a merged adapter, an exported folder), and what it is told."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from endonym.core.errors import MachineError, RecipeError, StoreError
from endonym.methods.nll import nll
from endonym.model import hf
from endonym.model.config import ModelConfig
from endonym.train import loop, trainee
from endonym.train.config import Adapter
from endonym.train.probe import Probe
from train.drill import Loader, Tiny, context, objective, settings

SIZES = ModelConfig(
    vocab_size=16,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
)


def words(model, rows):
    hidden = model(rows.tokens, positions=rows.positions, segments=rows.segments)
    return nll(hidden, model.head, rows.labels, rows.weights)


class Cut(Loader):
    def __init__(self, at):
        self.at = at

    def rows(self, step):
        if step == self.at:
            raise KeyboardInterrupt
        return super().rows(step)


def saved(folder):
    last = sorted((folder / "checkpoints").glob("step-*"))[-1]
    return load_file(last / "state.safetensors")


def test_with_an_average_the_model_given_away_probed_and_exported_is_the_average(tmp_path):
    seen, exported = [], []
    model = Tiny()
    loop.train(
        model,
        objective,
        Loader(),
        settings(ema=0.9),
        context(tmp_path),
        probes=[Probe("weight", lambda m: seen.append(m.layer.weight.clone()) or {})],
        export=lambda m, folder: exported.append(m.layer.weight.clone()),
    )
    state = saved(tmp_path)
    average, trained = state["extra/ema/layer.weight"], state["model/layer.weight"]
    assert not torch.equal(average, trained)
    assert torch.equal(model.layer.weight, average) and torch.equal(seen[-1], average)
    assert torch.equal(exported[-1], average)


@pytest.mark.parametrize(
    "changes",
    [{"ema": 0.9}, {"optimizer": "muon", "ema": 0.5}, {"on_spike": "rollback", "ema": 0.9}],
)
def test_a_run_with_more_state_than_weights_survives_a_kill(tmp_path, changes):
    whole = hf.new(SIZES, 0)
    loop.train(whole, words, Loader(), settings(**changes), context(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        here = context(tmp_path / "cut", checkpoint_seconds=0)
        loop.train(hf.new(SIZES, 0), words, Cut(13), settings(**changes), here)
    model = hf.new(SIZES, 1)
    figures = loop.train(model, words, Loader(), settings(**changes), context(tmp_path / "cut"))
    assert figures["resumed_at"] == 13
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in whole.state_dict().items())
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_an_adapter_learns_alone_survives_a_kill_and_is_merged(tmp_path):
    pytest.importorskip("peft")
    config = settings(adapter=Adapter(rank=2, dropout=0.1), warmup=0)
    base, model, folders = hf.new(SIZES, 0), hf.new(SIZES, 0), []

    def export(m, folder):
        folders.append(hf.save(m, folder) or folder)

    loop.train(model, words, Loader(), config, context(tmp_path / "whole"), export=export)
    changed = {n for n, t in base.state_dict().items() if not torch.equal(t, model.state_dict()[n])}
    assert changed == {n for n in base.state_dict() if ".layers." in n and "_proj" in n}
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert (tmp_path / "whole" / "adapter" / "adapter_model.safetensors").exists()
    # The folder beside the last state is the merged model, for anyone who loads it.
    last = sorted((tmp_path / "whole" / "checkpoints").glob("step-*"))[-1]
    other = hf.load(last / "model")
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in model.state_dict().items())
    with pytest.raises(KeyboardInterrupt):
        here = context(tmp_path / "cut", checkpoint_seconds=0)
        loop.train(hf.new(SIZES, 0), words, Cut(9), config, here, export=export)
    again = hf.new(SIZES, 0)
    loop.train(again, words, Loader(), config, context(tmp_path / "cut"), export=export)
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in model.state_dict().items())


def test_the_compilers_choice_is_asked_with_the_runs_own_rows_and_remembered(tmp_path, monkeypatch):
    asked = []

    def decide(model, rows, context, *, passes, device, dtype, before, largest):
        asked.append((len(rows), passes, before))
        return "plain"

    monkeypatch.setattr(trainee.compiling, "decide", decide)
    here = context(tmp_path, rows_per_device=4, compile="auto")
    for _ in range(2):
        figures = loop.train(Tiny(), objective, Loader(), settings(), here)
    assert asked == [(4, 48, None), (4, 48, "plain")] and figures["blocks"] == "plain"
    assert json.loads((tmp_path / "compile.json").read_text()) == "plain"


def test_an_objective_is_given_the_sum_over_processes(tmp_path):
    class Reducing:
        reduce = None

        def __call__(self, model, rows):
            assert self.reduce(torch.ones(1)) == 1
            return objective(model, rows)

    loop.train(Tiny(), Reducing(), Loader(), settings(steps=1), context(tmp_path))


def test_where_the_loader_stands_is_written_down(tmp_path):
    class Placed(Loader):
        def state(self, step):
            return {"phase": step // 3, "epoch/web": step / 8}

    loop.train(Tiny(), objective, Placed(), settings(steps=4), context(tmp_path))
    lines = [json.loads(x) for x in Path(tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(x["phase"], x["epoch/web"]) for x in lines] == [
        (0, 0.0), (0, 0.125), (0, 0.25), (1, 0.375),
    ]  # fmt: skip


def test_checkpoints_are_kept_as_asked(tmp_path):
    config = settings(keep={"every": 10, "last": 1})
    loop.train(Tiny(), objective, Loader(), config, context(tmp_path))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000010", "step-00000020", "step-00000024"]


def test_a_checkpoint_from_before_a_setting_existed_is_gone_on_from(tmp_path):
    loop.train(Tiny(), objective, Loader(), settings(), context(tmp_path))
    with pytest.raises(StoreError, match="other settings"):
        loop.train(Tiny(), objective, Loader(), settings(seed=3), context(tmp_path))
    plain = settings().model_dump(mode="json")
    defaults = settings().defaults()
    assert {name: plain[name] for name in defaults} | {"precision": "auto"} == defaults
    assert "steps" not in defaults and defaults["keep"] == {"last": 2, "every": None}


def test_eight_bits_need_a_device_that_has_them(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    with pytest.raises(MachineError, match="no products in float8"):
        loop.train(
            hf.new(SIZES, 0), words, Loader(), settings(precision="float8"), context(tmp_path)
        )
    with pytest.raises(RecipeError):
        settings().read({"steps": 1, "learning_rate": 1.0, "precision": "float9"})
