"""A run that is killed, by any signal at any moment, ends bitwise where an undisturbed one ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the drill forks")


def drill(folder: Path, *arguments: str) -> dict:
    script = Path(__file__).with_name("drill.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_kill_9_inside_saves_and_at_random_times(tmp_path):
    """The bare loop and every stage that trains; drill.py kills50 does it fifty times each."""
    done = drill(tmp_path, "kill", "loop", "pretrain", "sft", "reward_model")
    assert done.keys() == {"loop", "pretrain", "sft", "reward_model"}
    for kills in done.values():
        assert kills["in a save"] >= 3 and kills["at random"] >= 3 and kills["runs"] >= 1


def test_sigterm_and_sigint_save_at_the_next_step_border(tmp_path):
    assert drill(tmp_path, "term")["stops"] >= 6
