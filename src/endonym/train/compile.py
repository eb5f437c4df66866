"""torch.compile where it pays, and where that is: measured on the run's own rows, then remembered.

Compiled are the blocks of our decoder, each with two holes: attention over documents, since packed
rows have other documents at every step and each new shape would be compiled anew, and the mixture of
experts, whose shapes are chosen by its router. What is left, norms, projections, rotation and MLP,
has the shape [B, T, D] at every step; where that does change (a shorter micro-batch) it is compiled a
second time, for all lengths. Norm and rotation are given to the compiler as their plain formulas.

auto   takes one block, copied, forward and backward on the first rows of the run, plain and compiled,
       and compiles the model if the block is a tenth faster and the run is long enough to repay what
       compiling costs. A run whose blocks take less than LONG is not worth the trial. At worst a run
       is longer by one trial, once: the measurement is kept in the user's cache folder
always compiles without asking

Compiled products round otherwise than plain ones, so the choice stands in the record of the run's
environment, and a resumed run keeps it.
"""

import copy
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from endonym.core.artifact import write_json
from endonym.core.context import Context
from endonym.core.errors import MachineError, RecipeError
from endonym.methods.batch import Rows
from endonym.model import decoder, kernels, rope
from endonym.model.decoder import Block, Decoder
from endonym.model.experts import MoE

PLAIN, COMPILED = "plain", "compiled"

LONG = 600.0
"""Seconds that the blocks of a run must take, plain, before compiling them is tried: a trial costs half
a minute to two on a CPU."""

GAIN = 0.9
"""Compiled in at most this share of the plain time, or it is left."""

ROUNDS = 3
"""Passes that are timed of each kind, in turns; the fastest counts."""

BACKEND = "inductor"


def decide(
    model: nn.Module,
    rows: Rows,
    context: Context,
    *,
    passes: int,
    device: torch.device,
    dtype: torch.dtype,
    before: str | None = None,
    largest: Callable[[int], int] = int,
    cache: Path | None = None,
) -> str:
    """Compiles the model's blocks in place, or does not, as context.compile says: "compiled", "plain".

    rows:    a micro-batch as the run has them; passes: how many of them there will be
    before:  what the run had chosen whose checkpoint is resumed; under "auto" it is kept
    largest: ranks.largest, where there are several: they all choose alike
    cache:   the folder of measurements; None: the user's

    To be called after adapters and eight bits and before the model is sharded. MachineError where
    "always" is asked for and this machine cannot compile, RecipeError where the run is not of a kind
    that is compiled.
    """
    wish, note = context.compile, context.console.note
    if wish == "never":
        return PLAIN
    refusal = _why_not(model, context)
    if refusal:
        if wish == "always":
            raise RecipeError(
                "this run cannot be compiled", where="--compile", got=refusal, do="run without it"
            )
        note(f"compile: plain, since {refusal}")
        return PLAIN
    if wish == "always":
        _trial(model, rows, device, dtype, note=note)
        choice = COMPILED
    else:
        choice = before or _measured_choice(model, rows, passes, device, dtype, note, cache)
    choice = PLAIN if largest(int(choice == PLAIN)) else COMPILED
    if choice == COMPILED:
        with_holes(list(model.model.layers))
    return choice


def _why_not(model: nn.Module, context: Context) -> str | None:
    if not isinstance(model, Decoder):
        return "only blocks of Endonym's own decoder are compiled"
    if context.layout.context > 1:
        return "its processes share rows between them, and exchange them inside the blocks"
    return None


def with_holes(blocks: list[Block]) -> None:
    """Compiles each block in place, attention over documents and experts left out."""
    _prepare_formulas()
    for block in blocks:
        if isinstance(block.mlp, MoE):
            block.mlp.forward = torch.compiler.disable(block.mlp.forward)
        block.compile(backend=BACKEND)


def undone(blocks: list[Block]) -> None:
    """Plain blocks again."""
    for block in blocks:
        block._compiled_call_impl = None
        vars(block.mlp).pop("forward", None)


def _prepare_formulas() -> None:
    """What the compiler meets in a block; outside of it nothing changes."""
    if decoder.attend is kernels.attend:
        decoder.attend = torch.compiler.disable(kernels.attend)
        decoder.rms_norm, decoder.rotate = _rms_norm, _rotate


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """kernels.rms_norm, whose loop over blocks of a CPU's cache would be unrolled, for each length anew."""
    if not torch.compiler.is_compiling():
        return kernels.rms_norm(x, weight, eps)
    wide = x.float()
    inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * inverse * weight.float()).to(x.dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """rope.rotate, whose writing into halves the compiler cannot follow."""
    if not torch.compiler.is_compiling():
        return rope.rotate(x, cos, sin)
    turned, rest = x.split([2 * cos.shape[-1], x.shape[-1] - 2 * cos.shape[-1]], -1)
    a, b = turned.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


def _measured_choice(
    model: Decoder,
    rows: Rows,
    passes: int,
    device: torch.device,
    dtype: torch.dtype,
    note: Callable[[str], None],
    cache: Path | None,
) -> str:
    """By the seconds of one block, from the cache or measured now."""
    folder = cache or _cache_folder()
    path = folder / f"{_key(model, rows, device, dtype)}.json"
    count = len(model.model.layers) * passes
    times = _remembered(path)
    if times is None:
        plain = _seconds(_block(model, device), *_inputs(model, rows, device, dtype), device, dtype)
        if plain * count < LONG:
            note(f"compile: plain, since the blocks take {plain * count:.0f} s in all")
            return PLAIN
        times = _trial(model, rows, device, dtype, note=note, required=False)
        if times is None:
            return PLAIN
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, times)
    saved = (times["plain"] - times["compiled"]) * count
    pays = times["compiled"] <= GAIN * times["plain"] and saved > times["compiling"]
    choice = COMPILED if pays else PLAIN
    note(
        f"compile: {choice}; a block takes {times['plain'] * 1e3:.1f} ms plain, "
        f"{times['compiled'] * 1e3:.1f} ms compiled, {times['compiling']:.0f} s to compile"
    )
    return choice


def _trial(
    model: Decoder,
    rows: Rows,
    device: torch.device,
    dtype: torch.dtype,
    *,
    note: Callable[[str], None],
    required: bool = True,
) -> dict[str, float] | None:
    """Seconds of a block's pass, plain and compiled, and of compiling it; None where it cannot be."""
    inputs = _inputs(model, rows, device, dtype)
    plain, compiled = _block(model, device), _block(model, device)
    with_holes([compiled])
    began = time.perf_counter()
    try:
        _pass(compiled, *inputs, device, dtype)
    except Exception as error:  # whatever the compiler, Triton or the C++ compiler say
        reason = f"{type(error).__name__}: {error}".strip().split("\n")[0]
        if required:
            raise MachineError(
                "torch.compile does not work on this machine",
                where="--compile always",
                got=reason,
                do="run with --compile never; on a CPU a C++ compiler is needed, on a GPU Triton",
            ) from error
        note(f"compile: plain, since torch.compile fails here: {reason}")
        return None
    compiling = time.perf_counter() - began
    found = {"plain": float("inf"), "compiled": float("inf"), "compiling": compiling}
    for _ in range(ROUNDS):
        for name, block in (("plain", plain), ("compiled", compiled)):
            found[name] = min(found[name], _pass(block, *inputs, device, dtype))
    return found


def _block(model: Decoder, device: torch.device) -> Block:
    """A copy of a block of the model's commonest kind: the last one."""
    return copy.deepcopy(model.model.layers[-1]).to(device)


def _inputs(
    model: Decoder, rows: Rows, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, decoder.Where]:
    rows = rows.to(device)
    where = model.where(rows.tokens, rows.positions, rows.segments, None, dtype)
    shape = (*rows.tokens.shape, model.config.hidden_size)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator).to(device, dtype), where


def _seconds(
    block: Block, x: Tensor, where: decoder.Where, device: torch.device, dtype: torch.dtype
) -> float:
    return min(_pass(block, x, where, device, dtype) for _ in range(ROUNDS))


def _pass(
    block: Block, x: Tensor, where: decoder.Where, device: torch.device, dtype: torch.dtype
) -> float:
    """Seconds of one forward and backward pass."""
    _wait(device)
    began = time.perf_counter()
    with torch.random.fork_rng(), torch.enable_grad():
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            out = block(x.requires_grad_(), where)
        out.backward(out.detach())
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _key(model: Decoder, rows: Rows, device: torch.device, dtype: torch.dtype) -> str:
    """Of all that decides how fast a block is here."""
    block = model.model.layers[-1]
    parts = {
        "config": model.config.model_dump(mode="json"),
        "layers": sorted(type(each).__name__ for each in block.modules()),
        "rows": list(rows.tokens.shape),
        "packed": bool((rows.segments > 1).any()),
        "dtype": str(dtype),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _processor() -> str:
    return json.dumps(torch.cpu.get_capabilities(), sort_keys=True, default=str)


def _remembered(path: Path) -> dict[str, float] | None:
    try:
        found = json.loads(path.read_bytes())
        return {name: float(found[name]) for name in ("plain", "compiled", "compiling")}
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, or one that was cut off: measured again


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "endonym" / "compile"
