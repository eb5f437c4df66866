"""R21: a long run takes no more files, threads or memory than a short one."""

import json
import os
import resource
import sys
import threading
from pathlib import Path

import pytest

from endonym.train import loop
from endonym.train.config import TrainConfig
from endonym.train.probe import Probe
from train.drill import Loader, Tiny, context, objective


def taken() -> dict[str, float]:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "files": float(len(os.listdir("/proc/self/fd"))),
        "threads": float(threading.active_count()),
        "tasks": float(len(os.listdir("/proc/self/task"))),
        "resident": float(pages * resource.getpagesize()),
    }


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_thousands_of_steps_take_no_more_than_hundreds(tmp_path):
    """R21, scaled: 2,400 steps, a save every 40 and a probe every 40. After 400 nothing grows."""
    steps, seen = 2400, {}

    def measure(model):
        seen[len(seen)] = taken()
        return {"x": 1.0}

    config = TrainConfig(
        steps=steps,
        learning_rate=1e-3,
        precision="float32",
        probe_every=40,
        keep={"every": 40, "last": 1},
    )
    # Kept for good would be 60 folders: here the disk is told to keep one.
    keep_one = loop.Checkpoints.__init__

    def few(self, *arguments, keep, **more):
        keep_one(self, *arguments, keep=keep.model_copy(update={"every": None}), **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Checkpoints, "__init__", few)
        loop.train(
            Tiny(), objective, Loader(), config, context(tmp_path), probes=[Probe("p", measure)]
        )
    early, late = seen[10], seen[len(seen) - 1]
    assert late["files"] == early["files"] and late["threads"] == early["threads"]
    assert late["tasks"] == early["tasks"]
    assert late["resident"] < 1.01 * early["resident"]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [row["step"] for row in map(json.loads, lines) if "loss" in row] == list(range(steps))
