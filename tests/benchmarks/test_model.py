"""The model's benchmark runs and is told; arms that do other work are refused. No processes, no clock."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import compare, material, model, turns  # noqa: E402
from endonym.core.errors import DataError  # noqa: E402
from endonym.model.decode import PreparedStep  # noqa: E402
from endonym.model.decoder import Decoder  # noqa: E402

NEW_TOKENS = 4


class Here:
    """Turns within this process; each takes a second of CPU and two of the clock."""

    def __init__(self, kinds):
        self.kinds, self.record = list(kinds), compare.Record(peak_bytes=1)

    def ready(self, **facts):
        self.record.ready = json.loads(json.dumps(facts))

    def wait(self):
        if not self.kinds:
            raise turns.Finished
        self.kind = self.kinds.pop(0)
        return self.kind

    def done(self):
        self.record.cpu[self.kind["key"]], self.record.wall[self.kind["key"]] = [1.0], [2.0]


@pytest.fixture(scope="module")
def words():
    return material.tokenizer(500)


@pytest.fixture
def in_process(monkeypatch, words):
    """command and run() on a part of the text, with the arms in this process."""
    some = dict(list(material._texts().items())[:8])

    def run(arms, kinds, *, repeats, threads, note):
        records = {}
        for arm in arms:
            here = Here(kinds)
            with pytest.raises(turns.Finished):
                getattr(model, arm.function.split(":")[1])(arm.spec, here)
            records[arm.name] = here.record
        return records

    monkeypatch.setattr(model, "compare", run)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(model, "ROWS", 2)
    monkeypatch.setattr(model, "ANSWERS", 2)
    monkeypatch.setattr(model, "WARMUP", 1)
    monkeypatch.setattr(model, "ROW", 24)
    monkeypatch.setattr(material, "_texts", lambda: some)
    monkeypatch.setattr(material, "tokenizer", lambda size: words)
    small = partial(model.run, batches=(2,), new_tokens=NEW_TOKENS)
    monkeypatch.setattr(model, "run", small)
    return small


def one(run, folder, name="tiny", precision="float32"):
    return run(material.SHAPES[name], precision, 1, 1, folder, lambda text: None, peers=False)


def test_arms_run_and_are_told(in_process, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "run", partial(in_process, batches=(1,)))
    assert command.main(["model", "--tiny", "--json", "--write", str(tmp_path)]) == 0
    dense, *experts = results = json.loads(capsys.readouterr().out)["model"]
    table = (tmp_path / "benchmarks.md").read_text()
    works = [(row["work"], row["batch"]) for row in dense["rows"] if row["arm"] == "Endonym"]
    assert works == [("forward", 2), ("training", 2), ("decoding", 1)]
    for each in results:
        for row in each["rows"]:
            assert 0 <= row["difference"] <= each["tolerance"][row["work"]]
            tokens = 2 * 24 if row["work"] != "decoding" else NEW_TOKENS * model.ANSWERS
            assert row["tokens_per_cpu_second"]["median"] == tokens
            assert f"| {row['arm']} " in table
    assert {row["arm"] for row in dense["rows"]} == {
        "Endonym", "transformers", "transformers, static cache",
    }  # fmt: skip
    for each in experts:
        assert {"transformers, eager experts", "transformers, batched_mm experts"} <= {
            row["arm"] for row in each["rows"]
        }
    assert [each["precision"] for each in results] == ["bfloat16", "float32", "float32"]


def test_a_wrong_forward_pass_is_refused(in_process, tmp_path, monkeypatch):
    right = Decoder.logits
    monkeypatch.setattr(Decoder, "logits", lambda self, hidden: right(self, hidden) + 2e-4)
    with pytest.raises(DataError, match=r"different work(.|\n)*forward"):
        one(in_process, tmp_path)


def test_a_loss_that_reaches_half_of_the_model_is_refused(in_process, tmp_path, monkeypatch):
    right = Decoder._embedded
    monkeypatch.setattr(Decoder, "_embedded", lambda self, ids: right(self, ids).detach())
    with pytest.raises(DataError, match=r"different work(.|\n)*training"):
        one(in_process, tmp_path)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_other_tokens_are_refused(precision, in_process, tmp_path, monkeypatch):
    right = PreparedStep.logits
    monkeypatch.setattr(PreparedStep, "logits", lambda self, hidden: -right(self, hidden))
    with pytest.raises(DataError, match=r"different work(.|\n)*decoding"):
        one(in_process, tmp_path, precision=precision)


def test_a_turn_that_goes_wrong_after_a_right_warm_up_is_refused(in_process, tmp_path):
    one(in_process, tmp_path)
    reference = model.Reference(tmp_path)
    for precision in ("float32", "bfloat16"):
        spec = {"work": "decoding", "precision": precision, "device": "cpu"}
        right, wrong = reference.answers[:1], [[*reference.answers[0][:-1], 0]]
        given = iter([right] * model.WARMUP + [right, wrong])
        here = Here([{"key": "work"}, {"key": "check"}] * 2)
        with pytest.raises(DataError, match="different work"):
            model._take_turns(spec, here, reference, lambda given=given: next(given))
        assert here.record.ready["difference"] == 0 and len(here.kinds) == 0


def test_differences_are_what_they_say(in_process, tmp_path):
    one(in_process, tmp_path)
    reference = model.Reference(tmp_path)
    wanted = torch.from_file(str(tmp_path / "logits.f32"), size=2 * 24 * 2048)
    other = wanted.clone()
    other[-1] += 0.5
    assert reference.of_logits(other, "float32") == pytest.approx(0.5, abs=1e-6)
    assert reference.of_logits(wanted * 1.01, "bfloat16") == pytest.approx(0.01, rel=1e-3)
    gradient = torch.from_file(str(tmp_path / "gradient.f32"), size=2048 * 64)
    told = reference.of_gradient(reference.loss, reference.norm, gradient * 1.02)
    assert told == pytest.approx(0.02, rel=1e-3)
    assert reference.of_gradient(reference.loss * 1.5, reference.norm, gradient) == pytest.approx(
        0.5
    )
    other[0] = float("nan")
    for found in (reference.of_logits(other, "float32"), reference.of_answers([[1]])):
        with pytest.raises(DataError, match="different work"):
            reference.accept(found, "forward", "it")
