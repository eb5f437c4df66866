"""R7: no room on the disk, in a save or in the log: the run ends in words and goes on bitwise."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from train.drill import final, run

FULL = """
    import json, resource, signal, sys
    from pathlib import Path
    import train.drill as drill
    from endonym.core.errors import MachineError
    from endonym.train import loop

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Filling(drill.Loader):
        def __init__(self, limit):
            self.limit = limit
        def rows(self, step):
            if step == 6:
                resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, most))
            return super().rows(step)

    told = {}
    for where, limit, seconds in (("save", 2000, 0.0), ("log", 700, 1e9)):
        here = drill.context(Path(sys.argv[1]) / where, checkpoint_seconds=seconds)
        try:
            loop.train(drill.Tiny(), drill.objective, Filling(limit), drill.settings(), here)
        except MachineError as error:
            told[where] = str(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    print(json.dumps(told))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_a_full_disk_ends_the_run_and_room_again_ends_it_bitwise(tmp_path):
    """Files may not grow beyond 2,000 bytes where a checkpoint's has 3,000, or beyond 700 where the log
    of six steps has 1,000."""
    run(tmp_path / "whole")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL), tmp_path],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert (
        "could not be written" in told["save"] and "step-00000006, which is intact" in told["save"]
    )
    assert "writing failed" in told["log"] and "metrics.jsonl" in told["log"]
    for where, text in told.items():
        assert "bytes" in text and "same command again" in text
        left = [path.name for path in (tmp_path / where / "checkpoints").iterdir()]
        assert all(name.startswith("step-") for name in left)
        run(tmp_path / where)
        assert final(tmp_path / where) == final(tmp_path / "whole")
