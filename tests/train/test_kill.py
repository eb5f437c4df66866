"""A run that is killed, by any signal at any moment, ends bitwise where an undisturbed one ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def drill(folder: Path, kind: str) -> dict:
    script = Path(__file__).with_name("drill.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(folder), kind]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the drill forks")
def test_kill_9_inside_saves_and_at_random_times(tmp_path):
    done = drill(tmp_path, "kill")
    assert done["in a save"] >= 12 and done["at random"] >= 12 and done["runs"] >= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the drill forks")
def test_sigterm_and_sigint_save_at_the_next_step_border(tmp_path):
    assert drill(tmp_path, "term")["stops"] >= 6
