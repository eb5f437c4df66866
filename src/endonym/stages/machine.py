"""The machine that a plan is made for: GPUs by name, what fits on them, and what would make it fit."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from endonym.core.config import nearest
from endonym.core.errors import RecipeError
from endonym.model.budget import Memory


@dataclass(frozen=True)
class Gpu:
    """memory: bytes; peak: operations a second in bfloat16, summed in float32; bandwidth: bytes a second."""

    name: str
    memory: float
    peak: float
    bandwidth: float
    source: str


# Vendors' figures, dense (without sparsity).
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("H100", 80e9, 989e12, 3.35e12, "NVIDIA H100 data sheet, SXM"),
        Gpu("H200", 141e9, 989e12, 4.8e12, "NVIDIA H200 data sheet, SXM"),
        Gpu("A100-40GB", 40e9, 312e12, 1.555e12, "NVIDIA A100 data sheet, SXM, 2020"),
        Gpu("A100-80GB", 80e9, 312e12, 2.039e12, "NVIDIA A100 data sheet, SXM, 2021"),
        Gpu("B200", 180e9, 2250e12, 8e12, "NVIDIA DGX B200 data sheet, an eighth of the system"),
        Gpu("L40S", 48e9, 362e12, 0.864e12, "NVIDIA L40S data sheet"),
        Gpu("RTX4090", 24e9, 165e12, 1.008e12, "NVIDIA Ada GPU architecture paper, appendix A"),
    )
}

USABLE = 0.95
"""Share of the nominal memory that a plan fills. A nominal gigabyte is 10^9 bytes here; an H100 of 80
shows 85.5 x 10^9 (nvidia-smi: 81,559 MiB), so a tenth is left to CUDA, libraries and fragments."""


MFU = 0.3
"""Of training where no other is given: torchtitan's table has 5,762 tokens a second and GPU for
Llama-3.1-8B on 8 H100 in bfloat16, which is 0.30 as operations are counted here."""

SHORTEST = 512
"""Rows shorter than this are not proposed."""


@dataclass(frozen=True)
class Machine:
    """What a plan is made for. gpu None: one device of unknown kind; no hours, and nothing fits or not.

    rows_per_device: rows of one forward pass on one GPU; None: all that a step has for it, as a run
    does it. price: of an hour of one GPU, in whatever currency.
    """

    gpu: Gpu | None = None
    count: int = 1
    price: float | None = None
    mfu: float = MFU
    rows_per_device: int | None = None
    checkpointing: bool = False


def gpu(name: str) -> Gpu:
    """The GPU of this name, however it is written; RecipeError with the nearest name if there is none."""
    plain = {_plain(known): known for known in GPUS}
    plain |= {"a100": "A100-80GB", "4090": "RTX4090", "h10080gb": "H100", "h200141gb": "H200"}
    found = plain.get(_plain(name))
    if found is None:
        raise RecipeError(
            f"there is no GPU {name!r} in the table", where="--gpu", do=nearest(name, list(GPUS))
        )
    return GPUS[found]


def _plain(name: str) -> str:
    return "".join(c for c in name.lower().removeprefix("nvidia") if c.isalnum())


def fits(memory: Memory, machine: Machine) -> bool | None:
    """Whether one GPU of the machine holds it; None where no GPU is named."""
    return None if machine.gpu is None else memory.total <= USABLE * machine.gpu.memory


def remedies(
    memory: Callable[..., Memory], machine: Machine, rows: int, length: int = 0
) -> Iterator[str]:
    """Settings under which it fits, each of them enough.

    rows, length: of a forward pass now. Fewer rows, or checkpointing (training only), or both; where
    one row is not enough, that on a larger GPU, on more GPUs, or with shorter rows.
    """
    enough, one, words = [], replace(machine, rows_per_device=1), "--rows-per-device 1"
    fewer = [replace(machine, rows_per_device=rows >> n) for n in range(1, rows.bit_length())]
    if few := next((each for each in fewer if fits(memory(each), each)), None):
        enough.append(f"--rows-per-device {few.rows_per_device}")
    least = one
    if length:
        again, least = (replace(each, checkpointing=True) for each in (machine, one))
        words += " --checkpointing"
        if fits(memory(again), again):
            enough.append("--checkpointing")
    if not enough and fits(memory(least), least):
        enough.append(words)
    if enough:
        yield from enough
        return
    for larger in sorted(GPUS.values(), key=lambda each: each.memory):
        if fits(memory(other := replace(least, gpu=larger)), other):
            yield f"--gpu {larger.name} {words}"
            break
    for doubled in range(1, 13):
        more = replace(least, count=machine.count << doubled)
        if fits(memory(more), more):
            yield f"--count {more.count} {words}"
            break
    while (length := length // 2) >= SHORTEST:
        if fits(memory(least, length), least):
            yield f"row_length = {length} with {words}"
            break
