"""The check of a model server, against a stand-in with our own engine behind it."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import material, served
from endonym.engine.sampler import Sampling
from endonym.model import hf
from engine.folder_stand_in import Behind

pytest.importorskip("httpx")


@pytest.fixture
def folder(tmp_path):
    shape = material.SHAPES["tiny"]
    material.save_model(shape, tmp_path / "model", lively=True)
    material.tokenizer(shape.vocab_size).save(tmp_path / "model")
    return tmp_path / "model"


def test_our_own_engine_behind_a_server_answers_as_it_does(folder, monkeypatch, capsys):
    Behind(monkeypatch)
    monkeypatch.setattr(served, "PROMPTS", 4)
    assert served.main([str(folder), "--write", str(folder / "found.json")]) == 0
    found = json.loads((folder / "found.json").read_text())
    assert found == json.loads(capsys.readouterr().out)
    assert found["rows"]["greedy"]["equal_to_ours"] == 4
    for name, row in found["rows"].items():
        assert row["drawn_again_alike"] == 4
        assert name == "greedy" or row["logprob_difference"]["largest"] < 1e-4


@pytest.mark.parametrize("sampling", list(served.CASES.values())[1:])
def test_the_distribution_is_that_of_the_sampler(folder, sampling):
    """And a wrong one is seen: those of another temperature are not equal."""
    from endonym.engine.generate import generate

    model, prompt = hf.load(folder).eval(), [5, 6, 7]
    (drawn,) = generate(model, [prompt], sampling)
    told = served.logprobs(model, prompt, drawn.tokens, sampling)
    torch.testing.assert_close(told, torch.tensor(drawn.logprobs), atol=1e-5, rtol=1e-5)
    other = served.logprobs(model, prompt, drawn.tokens, Sampling(temperature=1.3))
    assert (other - told).abs().max() > 1e-2
