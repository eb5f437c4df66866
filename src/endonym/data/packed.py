"""The rows of one store at one length: which stretches of which sequences lie in which row.

    store, keep -> pieces -> packing        row r: the pieces packing.row(r), [R] rows

Plain arrays made once, nothing per row in Python: a second or two for 10^6 sequences.
"""

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from endonym.data.pack import Packing, Pieces, best_fit, cut, one_each
from endonym.data.store import TokenStore


@dataclass(frozen=True)
class Packed:
    """The rows of one store.

    name:      what reports call it
    inputs:    tokens of each row, [R] int64
    targets:   of each piece the predictions with a weight, [pieces] int64
    identity:  changes with the store, the sequences kept, the length of rows and the way of packing
    shortened: sequences longer than a row; dropped: those in which nothing is left to learn;
    filtered:  those that `keep` leaves out
    """

    name: str
    store: TokenStore
    pieces: Pieces
    packing: Packing
    inputs: np.ndarray
    targets: np.ndarray
    identity: str
    shortened: int
    dropped: int
    filtered: int

    @classmethod
    def of(
        cls,
        store: TokenStore,
        row_length: int,
        *,
        packed: bool = True,
        never_truncate: bool = False,
        keep: np.ndarray | None = None,
        name: str = "",
    ) -> "Packed":
        """The rows of the sequences of `store` that keep (bool [N]; None: all) lets through.

        A sequence of n tokens has n - 1 predictions, hence n - 1 inputs. One that is longer than a
        row goes on in another, where tokens have weights (conversations) it keeps its beginning, or
        is dropped if nothing of that is learnt; with never_truncate it is a DataError.
        """
        inputs = np.maximum(store.lengths - 1, 0)
        pieces = cut(inputs, row_length, never_truncate=never_truncate, keep=keep)
        kept = len(store) if keep is None else int(np.count_nonzero(keep))
        shortened = int(np.count_nonzero(pieces.start == row_length))
        targets = pieces.length
        if store.has_weights:
            begin = store.offsets[pieces.sequence] + pieces.start + 1
            targets = store.targets(begin, begin + pieces.length)
            learnt = (pieces.start == 0) & (targets > 0)
            pieces = Pieces(
                *(each[learnt] for each in (pieces.sequence, pieces.start, pieces.length))
            )
            targets = targets[learnt]
        dropped = kept - int(np.count_nonzero(pieces.start == 0))
        packing = (
            best_fit(pieces.length, row_length) if packed else one_each(len(pieces), row_length)
        )
        return cls(
            name=name or store.name,
            store=store,
            pieces=pieces,
            packing=packing,
            inputs=_sums(pieces.length[packing.order], packing.offsets),
            targets=targets,
            identity=_identity(store, row_length, packed, keep),
            shortened=shortened,
            dropped=dropped,
            filtered=len(store) - kept,
        )

    def __len__(self) -> int:
        return len(self.packing)

    @property
    def num_tokens(self) -> int:
        """Inputs of all rows together."""
        return int(self.inputs.sum())

    def sequences(self, row: int) -> list[tuple[int, int]]:
        """(sequence, first token) of each piece of a row."""
        inside = self.packing.row(row)
        return list(zip(self.pieces.sequence[inside].tolist(), self.pieces.start[inside].tolist()))

    def per_piece(self, times: np.ndarray) -> np.ndarray:
        """How often each piece is seen when each row is drawn times[r] times, [pieces]."""
        seen = np.empty(len(self.pieces), np.int64)
        seen[self.packing.order] = np.repeat(times, np.diff(self.packing.offsets))
        return seen


def _sums(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Sums of values[offsets[r] : offsets[r + 1]]."""
    return np.diff(np.concatenate([[0], np.cumsum(values)])[offsets])


def _identity(store: TokenStore, row_length: int, packed: bool, keep: np.ndarray | None) -> str:
    counts = [store.identity, len(store), store.num_tokens, store.meta["targets"]]
    digest = hashlib.sha256(json.dumps([counts, row_length, packed]).encode())
    if keep is not None and not keep.all():
        digest.update(np.packbits(keep).tobytes())
    return digest.hexdigest()
