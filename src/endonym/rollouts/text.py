"""The text that InK-GRPO injects: sequences of token stores, drawn independently of the prompts."""

import hashlib

import numpy as np

from endonym.data.loader import Loader
from endonym.data.store import TokenStore
from endonym.methods.ink_grpo import injects, text_scale
from endonym.rollouts.pieces import Piece


class Text:
    """lmbda, rho: of methods/ink_grpo.py; rows: sequences of a step that has them; row_length: the most
    tokens of one (of a longer document the rest is a sequence of its own); weights: by label, None: all
    sequences once an epoch."""

    def __init__(
        self,
        stores: list[TokenStore],
        weights: list[float] | None = None,
        *,
        lmbda: float,
        rho: float,
        rows: int,
        row_length: int,
        seed: int = 0,
    ):
        self.lmbda, self.rho, self.seed = lmbda, rho, seed
        self.loader = Loader(
            stores, weights, rows_per_step=rows, row_length=row_length, seed=seed, packed=False
        )
        settings = f"{self.loader.identity} {lmbda} {rho} {seed}"
        self.identity = hashlib.sha256(settings.encode()).hexdigest()
        self._before = [0]  # by step: in how many steps before it there was text

    def injects(self, step: int) -> bool:
        """b of this step; never where lambda is 0."""
        return self.lmbda > 0 and injects(self.seed, step, self.rho)

    def drawn(self, steps: int) -> int:
        """In how many of the first `steps` steps there is text."""
        while len(self._before) <= steps:
            self._before.append(self._before[-1] + self.injects(len(self._before) - 1))
        return self._before[steps]

    def pieces(self, step: int, share: float) -> list[Piece]:
        """The text of a step, weighed beside answers whose shares sum to `share`; none where b = 0."""
        if not self.injects(step):
            return []
        found = [
            self._piece(*piece) for row in self.loader.sequences(self.drawn(step)) for piece in row
        ]
        total = float(sum(each.weights.sum(dtype=np.float64) for each in found))
        factor, of_share = text_scale(self.lmbda, share, total)
        return [
            Piece(
                each.ids,
                each.weights * np.float32(factor),
                {
                    "text": np.ones(len(each), bool),
                    "share": each.weights * np.float32(of_share),
                },
            )
            for each in found
        ]

    def longest(self) -> Piece:
        """One as long as any may be."""
        length = self.loader.row_length
        extra = {"text": np.ones(length, bool)}
        return Piece(np.zeros(length + 1, np.int64), np.ones(length, np.float32), extra)

    def _piece(self, number: int, sequence: int, start: int) -> Piece:
        store = self.loader.sources[number].store
        length = min(int(store.lengths[sequence]) - 1 - start, self.loader.row_length)
        ids, weights = store.stretch(sequence, start, length + 1)
        learnt = np.ones(length, np.float32) if weights is None else weights[1:].astype(np.float32)
        return Piece(ids.astype(np.int64), learnt)
