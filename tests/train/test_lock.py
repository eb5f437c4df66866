"""R9: one trainer in a folder, and no lock that a dead process holds."""

import os
import signal

import pytest

from endonym.core.errors import MachineError, StoreError
from endonym.train import loop
from endonym.train.lock import LOCK, only_one
from train.drill import Loader, Tiny, context, objective, settings


def test_a_second_trainer_in_the_folder_is_refused(tmp_path):
    class Second(Loader):
        said = None

        def rows(self, step):
            if step == 3 and self.said is None:
                with pytest.raises(StoreError, match="another process trains") as caught:
                    loop.train(Tiny(), objective, Loader(), settings(), context(tmp_path))
                self.said = str(caught.value)
            return super().rows(step)

    loader = Second()
    figures = loop.train(Tiny(), objective, loader, settings(), context(tmp_path))
    assert f"process {os.getpid()} on" in loader.said and figures["steps"] == 24


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_dead_process_holds_nothing(tmp_path):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with only_one(tmp_path):
            os.write(writing, b"x")
            signal.pause()
    os.read(reading, 1)
    with pytest.raises(StoreError, match=f"process {child} on"), only_one(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / LOCK).exists()  # the file stays, and says nothing
    with only_one(tmp_path):
        pass


def test_the_lock_ends_with_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), only_one(tmp_path):
        raise ZeroDivisionError
    with only_one(tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(MachineError, match="writing failed"), only_one(tmp_path / "new"):
        pass
