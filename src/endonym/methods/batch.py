"""What goes into a loss and what comes out of it: packed rows of tokens, and a weighted sum.

Shapes: B rows, T time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Packed rows, input-aligned: at position t the model predicts labels[b, t].

    tokens:    [B, T] int64
    labels:    [B, T] int64, the next token of the same document; any value where the weight is 0
    weights:   [B, T] float32, weight of that prediction in the loss; 0 on padding, on prompts and
               on the last token of a document
    segments:  [B, T] int64, 0 = padding, 1.. = number of the document within its row; the tokens
               of one document stand side by side
    positions: [B, T] int64, position within the document, from 0
    extra:     [B, T, ...] each, what else an objective asks for at each position, by name: a pair's
               "margin" (data/pairs.py), a rollout's "advantage" (rollouts/), a teacher's "states"
    """

    tokens: Tensor
    labels: Tensor
    weights: Tensor
    segments: Tensor
    positions: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = {name: getattr(self, name) for name in _PLAIN} | self.extra
        shapes = {name: tuple(part.shape[:2]) for name, part in parts.items()}
        assert len(set(shapes.values())) == 1, f"the parts of Rows differ in shape: {shapes}"

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def num_tokens(self) -> int:
        """Tokens that are not padding."""
        return int((self.segments > 0).sum())

    def to(self, device: torch.device | str) -> "Rows":
        """The same rows on `device`."""
        return self.each(lambda part: part.to(device, non_blocking=True))

    def split(self, rows: int) -> "list[Rows]":
        """Micro-batches of at most `rows` rows, in order, each without the columns that are padding
        in all of its rows (down to a multiple of 8)."""
        assert rows > 0, f"a micro-batch of {rows} rows"
        columns = torch.arange(1, self.tokens.shape[1] + 1, device=self.segments.device)
        ends = ((self.segments > 0) * columns).amax(1).split(rows)
        widths = [max(8, -(-int(end.max()) // 8) * 8) for end in ends]
        return [
            self.each(lambda part, i=i, width=width: part[i : i + rows, :width])
            for i, width in zip(range(0, len(self), rows), widths)
        ]

    def each(self, change: Callable[[Tensor], Tensor]) -> "Rows":
        """The same rows with every part changed alike."""
        return Rows(
            *(change(getattr(self, name)) for name in _PLAIN),
            extra={name: change(part) for name, part in self.extra.items()},
        )


_PLAIN = ("tokens", "labels", "weights", "segments", "positions")


@dataclass(frozen=True)
class Loss:
    """What a method gives back.

    value:   differentiable scalar, the SUM of the weighted losses. The loop divides by the total
             weight over all micro-batches of a step, so gradient accumulation is exact
    weight:  sum of the weights
    figures: what is worth logging, sums or means as their names say
    """

    value: Tensor
    weight: Tensor | float
    figures: dict[str, float] = field(default_factory=dict)
