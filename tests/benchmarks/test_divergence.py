"""The comparison with TRL's distillation loss: the same work in all arms, or no figures at all."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import compare, divergence, turns
from endonym.core.errors import DataError

SHAPE = {"tokens": 40, "vocab": 50, "width": 8, "teacher": 12}


class Once:
    """One turn within this process."""

    def __init__(self):
        self.record, self.left = compare.Record(peak_bytes=1 << 40), 1

    def ready(self, **facts):
        self.record.ready = facts

    def wait(self):
        if not self.left:
            raise turns.Finished
        self.left -= 1

    def done(self):
        self.record.cpu["loss"] = self.record.wall["loss"] = [1.0]


@pytest.fixture
def in_process(monkeypatch):
    def run(arms, kinds, **_):
        records = {}
        for arm in arms:
            here = Once()
            with pytest.raises(turns.Finished):
                getattr(divergence, arm.function.split(":")[1])(arm.spec, here)
            records[arm.name] = here.record
        return records

    monkeypatch.setattr(divergence, "compare", run)


def test_all_arms_do_the_same_work(in_process):
    pytest.importorskip("trl", reason="the peer")
    for beta in divergence.BETAS:
        found = divergence.run(SHAPE, beta, "float32", 1, 1)
        assert found["difference"] < 1e-5  # float32: sums of 50 terms in another order
        assert [row["arm"] for row in found["rows"]] == ["Endonym", "Endonym, chunk 512", "TRL"]
        assert all(row["results"][0] > 0 for row in found["rows"])


def test_arms_that_differ_are_refused(in_process, monkeypatch):
    monkeypatch.setattr(divergence, "trl", divergence.ours)
    divergence.run(SHAPE, 0.0, "float32", 1, 1)
    other = lambda spec, turns: divergence.ours({**spec, "beta": 1.0}, turns)  # noqa: E731
    monkeypatch.setattr(divergence, "trl", other)
    with pytest.raises(DataError, match="compute different things"):
        divergence.run(SHAPE, 0.0, "float32", 1, 1)
