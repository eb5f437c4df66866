"""A teacher: a model in eval mode, without gradient, beside the student or in turn with it.

Shapes: B rows, T time, D the teacher's width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from endonym.methods.batch import Rows
from endonym.model.checkpoint import CausalLM


class Teacher:
    """model on `device`; in_turn: there only inside here(), at other times in the host's memory.

    names: the teacher's id of each id that rows hold, [V] int64; None: they are the same
    """

    def __init__(
        self,
        model: CausalLM,
        device: torch.device,
        names: Tensor | None = None,
        *,
        in_turn: bool = False,
    ):
        self.model, self.device, self.in_turn, self.names = model, device, in_turn, names
        model.eval().requires_grad_(False)
        if not in_turn:
            model.to(device)
        elif device.type == "cuda":
            for tensor in self._tensors():
                tensor.data = tensor.data.pin_memory()

    @contextmanager
    def here(self) -> Iterator[CausalLM]:
        """The model on its device. What it leaves behind is given up, not copied back: nothing of it has
        changed."""
        if not self.in_turn:
            yield self.model
            return
        homes = [(tensor, tensor.data) for tensor in self._tensors()]
        try:
            for tensor, home in homes:
                tensor.data = home.to(self.device, non_blocking=True)
            yield self.model
        finally:
            for tensor, home in homes:
                tensor.data = home

    @torch.no_grad()
    def states(self, rows: Rows) -> Tensor:
        """Hidden states [B, T, D] of rows, on the device; the model must be there."""
        tokens = rows.tokens.to(self.device)
        if self.names is not None:
            tokens = self.names.to(self.device)[tokens]
        return self.model(
            tokens,
            positions=rows.positions.to(self.device),
            segments=rows.segments.to(self.device),
        )

    def states_of(self, parts: Sequence[Rows], width: int) -> Tensor:
        """Hidden states [B, width, D] of all parts of a step, in the host's memory: one pass after the
        other while the teacher is on its device."""
        found = []
        with self.here():
            for part in parts:
                states = self.states(part).cpu()
                blank = width - states.shape[1]
                found.append(torch.nn.functional.pad(states, (0, 0, 0, blank)))
        return torch.cat(found)

    def _tensors(self) -> list[Tensor]:
        """Every parameter and buffer once."""
        both = [*self.model.parameters(), *self.model.buffers()]
        return list({id(tensor): tensor for tensor in both}.values())
