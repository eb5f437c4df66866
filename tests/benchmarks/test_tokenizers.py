"""The tokenizers' benchmark runs and is told; arms that encode otherwise are refused. No peer, no clock."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import compare, superbpe, tokenizers, turns  # noqa: E402
from endonym.core.errors import DataError  # noqa: E402
from endonym.tokenizer.train import train  # noqa: E402
from tokenizer.samples import english  # noqa: E402


class Here:
    """One turn within this process that took a second of CPU and two of the clock."""

    def __init__(self, key):
        self.key, self.record, self.is_over = key, compare.Record(peak_bytes=1), False

    def ready(self, **facts):
        self.record.ready = facts

    def wait(self):
        if self.is_over:
            raise turns.Finished
        self.is_over = True

    def done(self):
        self.record.cpu[self.key], self.record.wall[self.key] = [1.0], [2.0]


def test_own_arms_run_and_are_told(monkeypatch, capsys, tmp_path):
    def run(arms, kinds, *, repeats, threads, note):
        records = {}
        for arm in arms:
            here = Here(kinds[0]["key"])
            with pytest.raises(turns.Finished):
                getattr(tokenizers, arm.function.split(":")[1])(arm.spec, here)
            records[arm.name] = here.record
        return records

    monkeypatch.setattr(tokenizers, "compare", run)
    asked = ["tokenizers", "--tiny", "--without-peers", "--json", "--write", str(tmp_path)]
    assert command.main(asked) == 0
    (result,) = json.loads(capsys.readouterr().out)["tokenizers"]
    names = ["Endonym", "Endonym, superwords", "Endonym, extending"]
    assert [row["arm"] for row in result["learn"]] == names
    assert [row["arm"] for row in result["encode"]] == names[:2]
    assert all(row["vocab_size"] == result["size"] for row in result["learn"])
    plain, loose, _ = (row["bytes_per_token"] for row in result["learn"])
    assert 2 < plain < loose
    for row in result["learn"] + result["encode"]:
        assert row["mb_per_cpu_second"]["median"] == result["learnt_bytes"] / 1e6
    table = (tmp_path / "benchmarks.md").read_text()
    assert all(f"| {name} " in table for name in names)


def test_arms_that_encode_otherwise_are_refused():
    arms = [compare.Arm(name, "", {"tokenizer": "one"}) for name in "ab"]
    records = {name: compare.Record(ready={"ids": name}) for name in "ab"}
    with pytest.raises(DataError, match="encode otherwise"):
        tokenizers._same_ids(arms, records)
    tokenizers._same_ids([arms[0], compare.Arm("b", "", {"tokenizer": "two"})], records)


def test_texts_that_are_not_there_are_told(monkeypatch, tmp_path):
    monkeypatch.setenv("ENDONYM_SHARED", str(tmp_path))
    with pytest.raises(DataError, match="text is not there"):
        tokenizers.texts("th", 1000)


def test_texts_held_out_are_not_learnt_from():
    learn, held_out = tokenizers.texts("en", 10**9)
    assert held_out and not set(learn) & set(held_out)


def test_superwords_are_counted_by_their_words():
    texts = ["out of the way.\n"] * 30 + english(50)
    made = train(texts, 500, superwords_from=400)
    counted = superbpe.superwords(made, None)
    assert set(counted) <= {2, 3, 4} and counted[4] >= 1
    assert superbpe.superwords(train(texts, 400), None) == {}
