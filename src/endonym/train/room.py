"""How much memory this process may still take, and what sets the limit.

On a GPU what the driver has free and torch holds unused. On a CPU the least of three: what the system
can give without swapping, what the control group (a container, a Slurm job) leaves, each divided among
the processes that train on this machine, and the limit on the process's own addresses (ulimit -v).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

GROUPS, PROC = Path("/sys/fs/cgroup"), Path("/proc")


@dataclass(frozen=True)
class Room:
    """free: bytes; limit: in words, what sets them."""

    free: float
    limit: str


def room(device: torch.device) -> Room | None:
    """What this process may still take on `device`; None where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return Room(free + unused, f"the memory of {torch.cuda.get_device_name(device)}")
    together = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    shared = [Room(each.free / together, each.limit) for each in (*_system(), *_group())]
    return min([*shared, *_addresses()], key=lambda each: each.free, default=None)


def _system() -> Iterator[Room]:
    found = _fields(PROC / "meminfo").get("MemAvailable:")
    if found is not None:
        yield Room(1024 * found, "the machine's memory")


def _group() -> Iterator[Room]:
    """The control groups from this process's own up to the root, in either version's files."""
    for folder, limit, used, cache in _groups():
        most, now = _number(folder / limit), _number(folder / used)
        # Version 1 says "no limit" with a number near 2^63.
        if most is not None and now is not None and most < 1 << 60:
            # Pages of files that nobody has touched lately are given back before anything is refused.
            idle = _fields(folder / "memory.stat").get(cache, 0)
            yield Room(most - now + idle, "the control group's memory limit")


def _groups() -> Iterator[tuple[Path, str, str, str]]:
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = GROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = GROUPS / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        place = Path(path.lstrip("/"))
        for inside in (place, *place.parents) if place.parts else (place,):
            yield root / inside, *names


def _addresses() -> Iterator[Room]:
    try:
        import resource
    except ImportError:  # not a Unix
        return
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        pages = int((PROC / "self" / "statm").read_text().split()[0])
        used = pages * os.sysconf("SC_PAGE_SIZE")
        yield Room(most - used, "the limit on the process's addresses (ulimit -v)")


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not there, or the word "max"
        return None


def _fields(path: Path) -> dict[str, int]:
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}
