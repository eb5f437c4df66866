"""A lock on a folder. It belongs to the process and goes with it, however the process ends."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from endonym.core.errors import StoreError


@contextmanager
def locked(file: Path, what: str, do: str) -> Iterator[None]:
    """Holds `file` for this process until the end of the block; StoreError(what, do) if another does.

    The file stays: what counts is who holds it, which the system knows and no stale file can claim.
    OSError where it cannot be opened.
    """
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip()
            raise StoreError(
                what,
                where=file.parent,
                got=f"held by {holder or 'an unknown process'}",
                do=do,
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(handle)  # closing releases the lock, as does the death of the process
