"""A teacher: a model in eval mode, without gradient, beside the student or in turn with it.

In several processes its weights are divided among them as the student's are (train/parallel.py) and
gathered block by block in each pass, so all processes must run as many passes.

Shapes: B rows, T time, D the teacher's width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from endonym.methods.batch import Rows
from endonym.model.checkpoint import CausalLM
from endonym.train.parallel import Ranks, Stepping, shard


class Teacher:
    """model on `device`; in_turn: there only inside here(), at other times in the host's memory; where it
    is divided, each block's part only while that block runs.

    names: the teacher's id of each id that rows hold, [V] int64; None: they are the same
    """

    def __init__(
        self,
        model: CausalLM,
        device: torch.device,
        names: Tensor | None = None,
        *,
        in_turn: bool = False,
        ranks: Ranks | None = None,
    ):
        ranks = ranks or Ranks()
        self.model, self.device, self.names, self.ranks = model, device, names, ranks
        self.in_turn = in_turn and ranks.size == 1
        model.eval().requires_grad_(False)
        self._step = Stepping(model, self._no_objective)
        if ranks.size > 1:
            dtype = next(model.parameters()).dtype
            shard(self._step, ranks, device, dtype, offload=in_turn)
        elif not in_turn:
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

    @contextmanager
    def whole(self) -> Iterator[CausalLM]:
        """The model whole in this process, on its device, to draw answers with: where it is divided a copy,
        for as long as this lasts. All processes must enter together."""
        with self.here(), torch.no_grad():
            yield self._step.whole(self.ranks, self.device)

    def states(self, rows: Rows) -> Tensor:
        """Hidden states [B, T, D] of rows, on the device; the model must be there."""
        tokens = rows.tokens.to(self.device)
        if self.names is not None:
            tokens = self.names.to(self.device)[tokens]
        places = {
            "positions": rows.positions.to(self.device), "segments": rows.segments.to(self.device)
        }  # fmt: skip
        return self._step.inside(lambda model: model(tokens, **places))

    def states_of(self, parts: Sequence[Rows], width: int) -> Tensor:
        """Hidden states [B, width, D] of all parts of a step, in the host's memory: one pass after the
        other while the teacher is on its device. Other processes may have more parts: all run as many
        passes, of one token each where there is nothing left to run."""
        found, more = [], self.ranks.largest(len(parts)) - len(parts)
        with self.here():
            for part in parts:
                states = self.states(part).cpu()
                blank = width - states.shape[1]
                found.append(torch.nn.functional.pad(states, (0, 0, 0, blank)))
            for _ in range(more):
                self.states(parts[0].each(lambda each: each[:1, :1]))
        return torch.cat(found)

    @staticmethod
    def _no_objective(*given: object) -> None:
        raise AssertionError("a teacher learns nothing")

    def _tensors(self) -> list[Tensor]:
        """Every parameter and buffer once."""
        both = [*self.model.parameters(), *self.model.buffers()]
        return list({id(tensor): tensor for tensor in both}.values())
