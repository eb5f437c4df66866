"""From a context to the device, threads and seed that torch works with."""

import ctypes
import platform
from dataclasses import replace
from functools import cache

import torch

from endonym.core.context import Context
from endonym.core.errors import MachineError


def place(context: Context) -> torch.device:
    """The device that the context asks for ("auto": a GPU if there is one), threads set, and freed
    memory kept for reuse (keep_freed_memory).

    MachineError if it asks for a GPU that torch cannot see.
    """
    keep_freed_memory()
    if context.threads is not None:
        torch.set_num_threads(context.threads)
    wanted = context.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(wanted)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise MachineError(
            "a GPU was asked for, but torch sees none",
            where=f"--device {context.device}",
            got=f"torch {torch.__version__}",
            do="run with --device cpu, or install a CUDA build of torch",
        )
    return device


def settled(context: Context) -> Context:
    """The context with "auto" replaced by the device that it means here."""
    return replace(context, device=str(place(context)))


@cache
def keep_freed_memory() -> bool:
    """Whether this process now keeps the memory of freed tensors for the next ones.

    As it comes, glibc gives every large block back to the system when it is freed, and the next
    step's tensors are zeroed and mapped anew, page by page. With the thresholds of mallopt(3) raised
    the process stays at its peak instead of going down between steps. Other C libraries have no such
    settings: there nothing is done, which costs time only.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {_TRIM_THRESHOLD: 2**31 - 1, _MMAP_THRESHOLD: 2**30, _TOP_PAD: 2**26}
    return all([mallopt(name, value) for name, value in settings.items()])


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # their numbers in malloc.h
