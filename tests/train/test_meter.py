"""A log that opens where a checkpoint left it, its three kinds of lines, and what trackers are sent."""

import hashlib
import json
import sys
from types import ModuleType

import pytest

from endonym.core.errors import MachineError, RecipeError
from endonym.train import meter
from endonym.train.track import VARIABLE


def test_the_log_is_cut_and_its_hash_goes_on(tmp_path):
    with meter.Meter(tmp_path, 0, 0) as first:
        first.step({"step": 0, "loss": 1.0}, {"step": 0, "seconds": 0.1})
        length, digest = first.position()
        first.step({"step": 1, "loss": 2.0}, {"step": 1, "seconds": 0.1})
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    assert digest == hashlib.sha256(whole[:length]).hexdigest()
    with meter.Meter(tmp_path, 1, length) as second:
        assert second.position() == (length, digest)
        second.step({"step": 1, "loss": 2.0}, {"step": 1, "seconds": 0.2})
        assert second.position() == (len(whole), hashlib.sha256(whole).hexdigest())
        second.cut(1, length)
        assert second.position() == (length, digest)
        second.step({"step": 1, "loss": 2.0}, {"step": 1, "seconds": 0.3})
        assert second.position() == (len(whole), hashlib.sha256(whole).hexdigest())
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
    assert (tmp_path / "timing.jsonl").read_bytes().count(b"\n") == 4


def test_only_steps_have_a_loss_and_enter_the_means(tmp_path):
    with meter.Meter(tmp_path, 0, 0) as log:
        log.probe(0, {"needle/found": 0.5})
        for step in range(40):
            log.step({"step": step, "loss": None if step == 1 else float(step)}, {"step": step})
        log.fault({"step": 3, "fault": {"reason": "loss"}})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[0] == {"step": 0, "probe": {"needle/found": 0.5}}
    assert lines[-1] == {"step": 3, "fault": {"reason": "loss"}}
    # A twentieth of 40 is 2: steps 0 and 1, the second without a loss, and 38 and 39
    assert meter.losses(tmp_path / "metrics.jsonl", 40) == {"loss_first": 0.0, "loss": 38.5}


def test_a_value_that_json_does_not_know_is_refused(tmp_path):
    with meter.Meter(tmp_path, 0, 0) as log, pytest.raises(ValueError):
        log.step({"step": 0, "loss": float("nan")}, {"step": 0})
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


class Wandb(ModuleType):
    """Stands in for the package: what it was asked for."""

    def __init__(self):
        super().__init__("wandb")
        self.asked, self.sent, self.over = [], [], 0

    def init(self, **settings):
        self.asked.append(settings)
        return self

    def define_metric(self, name, step_metric):
        assert (name, step_metric) == ("*", "step")

    def log(self, figures, step=None):
        self.sent.append(figures if step is None else {**figures, "step": step})

    def finish(self):
        self.over += 1


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_gets_every_figure_and_the_same_run_again(tmp_path, monkeypatch, name):
    package = Wandb()
    monkeypatch.setitem(sys.modules, name, package)
    monkeypatch.setenv(VARIABLE, name)
    for _ in range(2):
        with meter.Meter(tmp_path, 0, 0, "sft") as log:
            log.step({"step": 3, "loss": 1.5, "skipped": "loss"}, {"step": 3, "seconds": 0.5})
            log.probe(4, {"needle/found": 0.5})
    assert package.sent[:2] == [
        {"train/loss": 1.5, "train/seconds": 0.5, "step": 3},
        {"probe/needle/found": 0.5, "step": 4},
    ]
    assert package.asked[0] == package.asked[1] and package.over == 2


def test_a_tracker_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv(VARIABLE, "wandb")
    with pytest.raises(MachineError, match="wandb, which is not installed"):
        meter.Meter(tmp_path, 0, 0)
    monkeypatch.setenv(VARIABLE, "wandbb")
    with pytest.raises(RecipeError, match="did you mean 'wandb'"):
        meter.Meter(tmp_path, 0, 0)


def test_a_process_that_is_not_the_main_one_writes_nothing(tmp_path):
    with meter.NoMeter() as log:
        log.step({"step": 0, "loss": 1.0}, {"step": 0})
        log.probe(1, {"a": 1.0})
        log.fault({"step": 1})
        log.timing({"step": 1})
        log.cut(0, 0)
        assert log.position()[0] == 0
    assert list(tmp_path.iterdir()) == []
