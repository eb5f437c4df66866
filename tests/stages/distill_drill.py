"""A small distillation, killed and run again: python distill_drill.py FOLDER KILLS_IN_SAVES KILLS_AT_RANDOM

What is killed, and what must be equal in the end: test_distill_runs.drilled.
"""

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from stages import test_distill_runs

    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    print(json.dumps(test_distill_runs.drilled(folder, *map(int, sys.argv[2:]))))
