"""What tests of rewards share."""

import pytest

from endonym.core.errors import MachineError
from endonym.rewards.sandbox import Sandbox


@pytest.fixture(scope="session")
def sandbox():
    """A sandbox; skipped where this machine has none, but not where it is there and does not hold."""
    try:
        return Sandbox.open(idle=0.7, workers=4)
    except MachineError as error:
        if "not installed" in error.what or "cannot be started" in error.what:
            pytest.skip(f"no sandbox here: {error}")
        raise
