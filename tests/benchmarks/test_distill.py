"""The comparison of distillation steps: its material is what it says, its own arm runs and is told."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import __main__ as command
from benchmarks import compare, distill, material, sft, turns
from endonym.core.errors import DataError


class Once:
    """One turn within this process; a second of it."""

    def __init__(self):
        self.record, self.left = compare.Record(peak_bytes=1), 1

    def ready(self, **facts):
        self.record.ready = facts

    def wait(self):
        if not self.left:
            raise turns.Finished
        self.left -= 1

    def done(self):
        self.record.cpu["step"] = self.record.wall["step"] = [1.0]


@pytest.fixture
def in_process(monkeypatch, tmp_path):
    specs = []

    def run(arms, kinds, *, repeats, threads, note):
        records = {}
        for arm in arms:
            here, scratch = Once(), tmp_path / str(len(specs))
            scratch.mkdir()
            specs.append({**arm.spec, "threads": threads, "scratch": str(scratch)})
            with pytest.raises(turns.Finished):
                distill.endonym(specs[-1], here)
            records[arm.name] = here.record
        return records

    monkeypatch.setattr(distill, "compare", run)
    return specs


def test_the_own_arm_runs_and_is_told(in_process, capsys):
    assert command.main(["distill", "--tiny", "--without-peers", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    (case,) = result["distill"]
    assert [spec["lmbda"] for spec in in_process] == [1.0, 0.0]
    for name in ("drawn", "given"):
        (row,) = case[name]["rows"]
        assert row["arm"] == "Endonym" and len(row["losses"]) == sft.WARMUP
        assert row["tokens_per_cpu_second"]["median"] == case["tokens"]
    assert case["drawn"]["rows"][0]["losses"] != case["given"]["rows"][0]["losses"]
    table = command.page.page(result)
    assert "| drawn | Endonym |" in table and "| given | Endonym |" in table


def test_given_answers_are_as_long_as_drawn_ones():
    words = material.tokenizer(2048)
    talks = distill.conversations(words)
    assert len(talks) == distill.PROMPTS
    for talk in talks:
        prompt, answer = distill.parts(words)(talk)
        assert len(answer) == distill.ANSWER and answer[-1] in words.stop_ids
        assert len(prompt) + len(answer) <= distill.LENGTH


def test_an_arm_with_other_losses_is_refused():
    rows = [{"arm": "a", "losses": [1.0]}, {"arm": "b", "losses": [1.3]}]
    with pytest.raises(DataError, match="different work"):
        distill.same_work(rows, distill.DRAWN)
