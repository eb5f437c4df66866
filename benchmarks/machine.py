"""What the figures were measured on, and what a process has used so far."""

import importlib.metadata
import os
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any

PACKAGES = ("endonym", "torch", "transformers", "trl", "accelerate", "datasets", "tokenizers")


def describe() -> dict[str, Any]:
    """Processor, cores, memory, system, Python, versions and the load of the last minutes."""
    return {
        "cpu": _cpu(),
        "bf16": _has_flag("avx512_bf16") or _has_flag("amx_bf16"),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "load": load(),
    }


def version(package: str) -> str | None:
    """The installed version, None where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def load() -> list[float]:
    """Mean number of runnable processes over 1, 5 and 15 minutes: ours count too."""
    return [round(value, 2) for value in os.getloadavg()]


def cpu_seconds() -> float:
    """Processor time of this process, all its threads, and the children that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def peak_bytes() -> int:
    """The most memory that this process has had resident, libraries included.

    On Linux from VmHWM: ru_maxrss of a child also counts what its parent held when it began.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _cpu() -> str:
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _has_flag(name: str) -> bool:
    return any(line.startswith("flags") and name in line.split() for line in _cpuinfo())


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []
