"""Before the first step: the memory that training will take, and how many rows go through at once.

The estimate is model/budget.training_memory, within about a tenth of what a step takes on a CPU. What
does not fit is refused before anything of it is allocated, with what would make it fit. Of a model of
transformers' own only weights, gradients and moments are known: the least it takes; offloaded, nothing.

Rows of one forward pass: context.rows_per_device, or where that is left open

    on a CPU   rows of together CPU_TOKENS, the fastest that was measured, or fewer if memory asks it
    on a GPU   as many as fit

The choice is a number of tokens, kept in the checkpoint (Progress.extra): a resumed run splits its
steps as before, and so rounds as before.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from endonym.core.context import Context
from endonym.core.errors import MachineError, RecipeError
from endonym.methods.batch import Rows
from endonym.model.budget import Memory, moments, training_memory
from endonym.model.config import ModelConfig
from endonym.train.config import TrainConfig
from endonym.train.parallel import Ranks
from endonym.train.room import Room, room

CPU_TOKENS = 2048
"""Of one forward pass on a CPU, where there is a choice. Measured in float32 on one thread (4 blocks,
CPU-seconds, 16,384 tokens a step): at width 128 passes of 1,024 to 16,384 tokens gave 7.8 to 8.7
thousand tokens a second in no order, at width 256 passes of 512 to 16,384 gave 1.7 to 2.0 thousand; 256
tokens were a quarter slower; at width 512 and 10 blocks 2,048 gave 450 and 4,096 gave 424 a second, with
2.5 GB against 3.3. So caches do not decide here, and more than this only takes memory."""

FILLED = 0.85
"""Share of the free memory that a split chosen here may fill: a step takes up to 1.2 times what is
estimated (model/budget.py), and no forward pass is chosen up to the brim."""

Shape = tuple[int, int]
"""(rows of this process in a step, their length)."""


@dataclass(frozen=True)
class Forward:
    """Of one forward pass: `rows` rows where they are given, else so many as hold `tokens`; at least one."""

    tokens: int
    rows: int | None = None

    def count(self, rows: int, length: int) -> int:
        """Rows of a forward pass, out of `rows` of this length."""
        return min(rows, self.rows or max(1, self.tokens // length))

    def split(self, rows: Rows) -> list[Rows]:
        """A step's rows in the parts that go through the model one after the other."""
        count = self.count(len(rows), rows.tokens.shape[1])
        return [rows] if count == len(rows) else rows.split(count)


class Foresight:
    """What a run takes: asked for a number of tokens, and told when memory ran out after all."""

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        context: Context,
        device: torch.device,
        dtype: torch.dtype,
        ranks: Ranks,
    ):
        self._model, self._config, self._context = model, config, context
        self._device, self._half, self._ranks = device, dtype != torch.float32, ranks
        held = sum(p.nbytes for p in model.parameters() if p.device.type == device.type)
        self._held = held  # its weights lie there already
        self.room: Room | None = room(device)

    def memory(self, tokens: int, checkpointing: bool | None = None) -> Memory:
        """Bytes on this device with `tokens` in a forward pass."""
        if checkpointing is None:
            checkpointing = self._context.checkpointing
        sizes = self._model.config
        if not isinstance(sizes, ModelConfig):
            return self._least()
        return training_memory(
            sizes,
            tokens,
            devices=self._ranks.size,
            half=self._half,
            checkpointing=checkpointing,
            optimizer=self._config.optimizer,
            ema=bool(self._config.ema),
            mtp=bool(sizes.mtp_modules),
            adapter=self._config.adapter,
            offload=self._context.offload,
        )

    def _least(self) -> Memory:
        if self._context.offload:
            return Memory()
        parameters = list(self._model.parameters())
        learning = [each for each in parameters if each.requires_grad]
        count, part = sum(each.numel() for each in learning), 1 / self._ranks.size
        return Memory(
            weights=sum(each.nbytes for each in parameters) * part,
            gradients=sum(each.nbytes for each in learning) * part,
            optimizer=moments(self._config.optimizer, count, 0) * part,
        )

    def fits(self, tokens: int, share: float = 1.0, **changes: Any) -> bool:
        """Whether what is still to be allocated fits into this share of what is free."""
        if self.room is None:
            return True
        return self.memory(tokens, **changes).total - self._held <= share * self.room.free

    def forward(self, shapes: Sequence[Shape], before: int | None = None) -> Forward:
        """How a step is split, for steps of these shapes; MachineError where not even one row fits.

        before: tokens of a forward pass, of the run that is resumed.
        """

        def largest(choice: Forward) -> int:
            return max(choice.count(rows, length) * length for rows, length in shapes)

        if self._context.rows_per_device is not None and self._context.rows_per_device < 1:
            raise RecipeError(
                "a forward pass has at least one row",
                where="--rows-per-device",
                got=self._context.rows_per_device,
            )
        length = max(length for _, length in shapes)
        choice = Forward(max(r * t for r, t in shapes), self._context.rows_per_device)
        if choice.rows is None:
            if before is not None or self._device.type == "cpu":
                choice = Forward(before or CPU_TOKENS)
            while choice.tokens > length and not self.fits(largest(choice), FILLED):
                choice = Forward(choice.tokens // 2)
            # All ranks take as many parts, or they would wait for one another.
            choice = Forward(-self._ranks.largest(-choice.tokens))
        if not self.fits(largest(choice)):
            raise self.too_much(largest(choice), length)
        return choice

    def too_much(self, tokens: int, length: int, error: Exception | None = None) -> MachineError:
        """The estimate in words, and what would fit. error: memory ran out although it was to fit."""
        memory = self.memory(tokens)
        parts = {name: size for name, size in vars(memory).items() if size}
        told = ", ".join(f"{name} {_size(size)}" for name, size in parts.items())
        free = "" if self.room is None else f"{_size(self.room.free)} free: {self.room.limit}"
        what = "this training step does not fit into memory"
        if error is not None:
            what = f"memory ran out: {str(error).splitlines()[0]}"
        return MachineError(
            what,
            where=f"{self._device}, {tokens} tokens of a forward pass",
            wanted=f"about {_size(memory.total)} ({told}), {_size(self._held)} of it taken already",
            got=free or None,
            do="; or ".join(self._remedies(tokens, length)),
        )

    def _remedies(self, tokens: int, length: int) -> list[str]:
        rows = math.ceil(tokens / length)
        fewer = [n for n in (rows >> k for k in range(1, rows.bit_length())) if n]
        enough = [n for n in fewer if self.fits(n * length)]
        ways = [f"--rows-per-device {enough[0]}"] if enough else []
        if isinstance(self._model.config, ModelConfig) and not self._context.checkpointing:
            if self.fits(tokens, checkpointing=True):
                ways.append("--checkpointing")
            elif not ways and self.fits(length, checkpointing=True):
                ways.append("--rows-per-device 1 --checkpointing")
        if not ways and rows > 1:
            ways.append("--rows-per-device 1")
        more = "" if ways and self.room is not None else "a smaller row_length, "
        return [*ways, f"{more}a machine with more memory, or more of them (endonym plan)"]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, in any of the words that torch and Python have for it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("can't allocate memory", "not enough memory", "bad allocation", "std::bad_alloc")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _size(count: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{max(count, 0) / 1e3:.3g} kB"
