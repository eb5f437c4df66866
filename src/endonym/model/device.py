"""From a context to the device, threads and seed that torch works with."""

from dataclasses import replace

import torch

from endonym.core.context import Context
from endonym.core.errors import MachineError


def place(context: Context) -> torch.device:
    """The device that the context asks for ("auto": a GPU if there is one), threads set.

    MachineError if it asks for a GPU that torch cannot see, or for no device at all.
    """
    if context.threads is not None:
        torch.set_num_threads(context.threads)
    wanted = context.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise MachineError(
            "there is no such device",
            where=f"--device {context.device}",
            wanted="auto, cpu, cuda or cuda:N",
        ) from None
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
