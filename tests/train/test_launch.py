"""Workers: one outcome, one error; signals reach them, and none outlives its parent."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from endonym.core.context import Context
from endonym.core.errors import DataError, MachineError
from endonym.train import launch
from endonym.train.launch import Ends
from endonym.train.stop import Stopped


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    if not hasattr(os, "fork"):
        pytest.skip("the workers are forked")
    done = subprocess.run(
        [sys.executable, "-m", "train.launched", str(tmp_path_factory.mktemp("launched"))],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        },
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_two_workers_give_the_outcome_of_one(found):
    one, two = found["one"], found["two"]
    assert two["figures"]["loss"] == pytest.approx(one["figures"]["loss"], rel=1e-6)
    assert two["figures"]["tokens"] == one["figures"]["tokens"] and two["licences"] == ["CC0"]
    assert found["word"] == "handed on"


def test_an_error_of_a_worker_is_the_error_of_the_call(found):
    assert found["error"]["error"] == "DataError"
    assert found["error"]["text"] == "a row is broken\n  where: step 3\n  do: mend it"
    assert not found["error"]["alive"]


def test_a_killed_worker_ends_the_others(found):
    assert found["killed"]["error"] == "MachineError"
    assert "rank 1: SIGKILL" in found["killed"]["text"] and not found["killed"]["alive"]


@pytest.mark.parametrize("name, status", [("term", 143), ("int", 130)])
def test_a_signal_to_the_parent_saves_at_the_next_step_border(found, name, status):
    seen = found[name]
    assert seen["status"] == status and not seen["alive"]
    assert seen["newest"] == f"step-{seen['lines']:08d}"


def test_workers_do_not_outlive_a_killed_parent(found):
    assert found["parent"]["status"] == -9
    assert not found["parent"]["alive"]


def test_after_all_of_that_the_end_is_bitwise_the_same(found):
    assert found["after"]["final"] == found["two"]["final"]


def say(folder: Path, rank: int, how: str, time: float, **what):
    text = json.dumps({"rank": rank, "how": how, "time": time, **what})
    (folder / f"{rank}.json").write_text(text)


def failed(what: str, kind: str | None = None, **parts):
    return {"kind": kind, "what": what, "parts": parts}


def test_an_error_with_a_remedy_comes_before_the_ones_it_caused(tmp_path):
    say(tmp_path, 0, launch.FAILED, 1.0, **failed("Connection closed by peer"))
    say(tmp_path, 1, launch.FAILED, 2.0, **failed("a row is broken", "DataError", where="row 7"))
    with pytest.raises(DataError, match="row 7"):
        launch._outcome(tmp_path, Ends({}))


def test_a_death_comes_before_what_the_others_say_of_it(tmp_path):
    say(tmp_path, 0, launch.FAILED, 1.0, **failed("Connection closed by peer"))
    with pytest.raises(MachineError, match="rank 1: SIGKILL"):
        launch._outcome(tmp_path, Ends({1: "SIGKILL"}))


def test_the_first_of_several_faults_is_told_with_its_place(tmp_path):
    say(tmp_path, 0, launch.FAILED, 2.0, **failed("later"))
    say(tmp_path, 1, launch.FAILED, 1.0, **failed("sooner"))
    with pytest.raises(RuntimeError, match=r"rank 1 failed:\nsooner"):
        launch._outcome(tmp_path, Ends({}))


def test_workers_that_a_signal_ended_before_the_first_step(tmp_path):
    with pytest.raises(Stopped) as stopped:
        launch._outcome(tmp_path, Ends({0: "SIGTERM", 1: "SIGTERM"}, 15))
    assert stopped.value.code == 143


def test_silence_is_an_error(tmp_path):
    with pytest.raises(MachineError, match="without a word"):
        launch._outcome(tmp_path, Ends({}))


def test_it_is_wanted_for_several_processes_and_not_within_them(monkeypatch):
    assert not launch.wanted(Context()) and launch.wanted(Context(processes=2))
    assert launch.wanted(Context(slurm={"nodes": 1}))
    assert not launch.wanted(Context(processes=None))  # a CPU: one process
    monkeypatch.setenv("RANK", "0")
    assert not launch.wanted(Context(processes=2))
