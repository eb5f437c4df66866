"""One trainer in a folder."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from endonym.core.artifact import machine_error
from endonym.core.lock import locked

LOCK = "training.lock"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Holds `folder` for this process, until the end of the block. StoreError if another holds it.

    The store's own lock covers runs of recipes; this one also a call of train() by itself.
    """
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(
                locked(
                    folder / LOCK,
                    "another process trains in this folder",
                    "wait for it, or stop it and run again: it goes on from its last checkpoint",
                )
            )
        except OSError as error:
            raise machine_error(error, folder) from error
        yield
