"""One trainer in a folder. The lock belongs to the process and goes with it, however it ends."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from endonym.core.artifact import machine_error
from endonym.core.errors import StoreError

LOCK = "training.lock"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Holds `folder` for this process, until the end of the block. StoreError if another holds it.

    The store's own lock covers runs of recipes; this one also a call of train() by itself. The file
    stays: what counts is who holds it, which the system knows and no stale file can claim.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise machine_error(error, folder) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip()
            raise StoreError(
                "another process trains in this folder",
                where=folder,
                got=f"held by {holder or 'an unknown process'}",
                do="wait for it, or stop it and run again: it goes on from its last checkpoint",
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(handle)
