"""A training stage in two processes: the same loss, probes and folder as in one."""

from dataclasses import replace

import pytest

from endonym.core.artifact import Artifact
from endonym.model import hf
from endonym.stages.pretrain import PretrainConfig, pretrain
from eval.tiny import ENGLISH, context, model, tokenizer
from stages.test_pretrain import RUN, documents


def test_two_processes_train_as_one_does(tmp_path):
    start = tmp_path / "model"
    hf.save(model(), start, eos_ids=tokenizer().stop_ids)
    tokenizer().save(start)
    text = [f"{ENGLISH} number {n}" for n in range(40)]
    inputs = {
        "model": Artifact(start, {"licences": ["MIT"], "files": {}, "figures": {}}),
        "text": {"en": documents(tmp_path / "en", "en", text)},
        "validation": {"en": documents(tmp_path / "held", "en", [ENGLISH])},
    }
    settings = PretrainConfig.read(RUN | {"steps": 3, "probe_every": 2, "validation_tokens": 60})
    found = []
    for processes in (1, 2):
        scratch, out = tmp_path / f"scratch{processes}", tmp_path / f"out{processes}"
        scratch.mkdir()
        out.mkdir()
        here = replace(context(scratch), threads=1, processes=processes)
        outcome = pretrain(settings, here, out, **inputs)
        assert hf.load(out).head.shape == model().head.shape
        found.append(outcome.figures)
    one, two = found
    assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)
    assert two["tokens"] == one["tokens"] and two["drawn"] == one["drawn"]
    before, after = (each["probes"]["validation/bpb_en"] for each in found)
    assert after == pytest.approx(before, abs=1e-5)
    assert before["before"] != before["after"]
