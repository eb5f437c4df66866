"""Training rows by step number: ids in memory-mapped files, and an order that needs no state.

    texts or conversations -> TokenStore (ids, once) -> Packed (rows) -> Loader.rows(step)

Resuming at step n is calling rows(n): nothing is skipped, no position is saved. Shapes: B rows,
T time.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from endonym.core.errors import DataError, RecipeError
from endonym.data.mix import Mixture
from endonym.data.packed import Packed
from endonym.data.store import TokenStore

if TYPE_CHECKING:
    from endonym.methods.batch import Rows


class Loader:
    """Packed rows of several stores, mixed by weight, as a function of the step.

    stores:         where the tokens lie; a Packed is taken as it is, with its own settings
    weights:        share of ROWS each store gets (rows are packed nearly full, so about of tokens);
                    None takes all rows of all stores once an epoch
    rows_per_step:  B of one optimizer step; the loop may split it, the order does not change
    row_length:     T at most
    packed:         several sequences a row; False gives each a row of its own
    never_truncate: refuse sequences longer than a row. Otherwise a document goes on in another
                    row as a piece of its own, and a conversation keeps its beginning
    keep:           for each store which sequences are taken (bool [N]), or None for all
    after:          for each store how many of its rows were drawn before step 0 (data/phases.py). The
                    mixture is then fine, and a store's order hangs on its name, not on its place
    """

    def __init__(
        self,
        stores: Sequence[TokenStore | Packed],
        weights: Sequence[float] | None = None,
        *,
        rows_per_step: int,
        row_length: int,
        seed: int = 0,
        packed: bool = True,
        never_truncate: bool = False,
        keep: Sequence[np.ndarray | None] | None = None,
        after: Sequence[int] | None = None,
    ):
        self.rows_per_step, self.row_length = rows_per_step, row_length
        self.sources = [
            store
            if isinstance(store, Packed)
            else Packed.of(
                store, row_length, packed=packed, never_truncate=never_truncate, keep=kept
            )
            for store, kept in zip(stores, keep or [None] * len(stores), strict=True)
        ]
        self.num_rows = [len(source) for source in self.sources]
        self._joint = np.concatenate([[0], np.cumsum(self.num_rows)]).astype(np.int64)
        idle = [
            source
            for source, weight in zip(
                self.sources, [1] * len(self.sources) if weights is None else weights
            )
            if weight and not len(source)
        ]
        if idle if weights is not None else not sum(self.num_rows):
            raise DataError(
                "there is nothing to train on",
                where=", ".join(source.name for source in idle),
                wanted=f"a sequence to learn from that fits rows of {row_length} tokens",
                got="; ".join(
                    f"{source.name}: {len(source.store)} sequences, of which {source.filtered} filtered "
                    f"out, {source.dropped} too long, or without anything to learn"
                    for source in idle
                ),
                do="choose longer rows or other thresholds, or give other data",
            )
        if len({source.name for source in self.sources}) < len(self.sources):
            raise RecipeError(
                "two sources have one name", got=", ".join(s.name for s in self.sources)
            )
        self._is_joint = weights is None and len(self.sources) > 1
        sizes = [int(self._joint[-1])] if weights is None else self.num_rows
        self.mixture = Mixture.of(
            sizes,
            None if weights is None else list(weights),
            seed,
            keys=None if after is None else [_number(source.name) for source in self.sources],
            after=None if after is None else list(after),
            fine=after is not None,
        )
        wanted = np.asarray(self.num_rows if weights is None else weights, np.float64)
        if after is not None:  # a phase's weights are made of shares of tokens
            wanted = wanted * [s.num_tokens / max(len(s), 1) for s in self.sources]
        self.asked = (wanted / wanted.sum()).tolist()
        """The share that each store was to get: of rows, in a phase of tokens."""
        order = [seed, self.mixture.counts, sizes, self.mixture.keys, self.mixture.after]
        settings = [rows_per_step, row_length, self.mixture.fine, order]
        names = [source.identity for source in self.sources]
        self.identity = hashlib.sha256(json.dumps([settings, names]).encode()).hexdigest()

    @property
    def shortened(self) -> list[int]:
        """Of each store the sequences longer than a row."""
        return [source.shortened for source in self.sources]

    @property
    def dropped(self) -> list[int]:
        """Of each store the sequences in which nothing is learnt."""
        return [source.dropped for source in self.sources]

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every row has been seen at least once, with weights None."""
        return -(-int(self._joint[-1]) // self.rows_per_step)

    def places(self, step: int) -> list[tuple[int, int]]:
        """(store, row of its packing) of each row of a step."""
        slots = np.arange(step * self.rows_per_step, (step + 1) * self.rows_per_step)
        source, row = self.mixture.at(slots)
        if self._is_joint:
            source = np.searchsorted(self._joint, row, side="right") - 1
            row = row - self._joint[source]
        return list(zip(source.tolist(), row.tolist()))

    def sequences(self, step: int) -> list[list[tuple[int, int, int]]]:
        """For each row of a step its pieces: (store, sequence, first token)."""
        return [
            [(number, *piece) for piece in self.sources[number].sequences(row)]
            for number, row in self.places(step)
        ]

    def names(self, step: int) -> list[str]:
        """For each row of a step a text for logs: its store, then its sequences, "+n" from token n on."""
        return [
            f"{self.sources[number].name}: "
            + " ".join(
                f"{sequence}+{start}" if start else f"{sequence}"
                for sequence, start in self.sources[number].sequences(row)
            )
            for number, row in self.places(step)
        ]

    def rows(self, step: int, part: tuple[int, int] = (0, 1)) -> "Rows":
        """The rows of step `step` (from 0), padded to the longest of them and a multiple of 8.

        part (r, n): the r-th of n equal parts, in order, as wide as the whole step: the parts one
        below the other are exactly the step. RecipeError where n does not divide the rows.
        """
        import torch

        from endonym.methods.batch import Rows

        places, mine = self.places(step), stretch_of(self.rows_per_step, part)
        longest = max(int(self.sources[number].inputs[row]) for number, row in places)
        width = min(-(-longest // 8) * 8, self.row_length)
        shape = (mine.stop - mine.start, width)
        tokens, labels = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        weights = np.zeros(shape, np.float32)
        segments, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for line, (number, row) in enumerate(places[mine]):
            source, at = self.sources[number], 0
            pieces = source.pieces
            for segment, piece in enumerate(source.packing.row(row).tolist(), start=1):
                length = int(pieces.length[piece])
                here = slice(at, at + length)
                ids, weight = source.store.stretch(
                    int(pieces.sequence[piece]), int(pieces.start[piece]), length + 1
                )
                tokens[line, here], labels[line, here] = ids[:-1], ids[1:]
                weights[line, here] = 1.0 if weight is None else weight[1:]
                segments[line, here] = segment
                positions[line, here] = np.arange(length)
                at += length
        return Rows(*map(torch.from_numpy, (tokens, labels, weights, segments, positions)))

    def state(self, step: int) -> dict[str, float]:
        """Before step `step`, "epoch/NAME": how often the rows of each store have been drawn."""
        epochs = self.mixture.epochs(step * self.rows_per_step)
        if len(epochs) != len(self.sources):
            epochs = epochs * len(self.sources)
        return {f"epoch/{source.name}": epoch for source, epoch in zip(self.sources, epochs)}

    def measured(self, steps: int) -> dict[str, Any]:
        """What `steps` steps draw, counted from the rows drawn, beside what was asked.

        tokens: inputs (padding is none); targets: predictions with a weight; rows; and for each of
        sources (the stores), languages and origins (a sequence's own `source`) the tokens, targets and
        share of tokens. A source also has the share that it was to get (asked), its rows and its epochs.
        Exact, from the lengths of pieces: no ids are read, and the cost is that of one look at
        every row, however many steps there are.
        """
        sources, languages, origins = {}, {}, {}
        for source, times, asked in zip(
            self.sources, self._times(steps * self.rows_per_step), self.asked
        ):
            seen = source.per_piece(times)
            tokens, targets = seen * source.pieces.length, seen * source.targets
            rows = int(times.sum())
            sources[source.name] = {
                "asked": asked,
                "rows": rows,
                "tokens": int(tokens.sum()),
                "targets": int(targets.sum()),
                "epochs": rows / max(len(source), 1),
            }
            for labels, into in (
                (source.store.languages, languages),
                (source.store.sources, origins),
            ):
                codes = labels.codes[source.pieces.sequence]
                for name, counts in _by_label(labels.names, codes, tokens, targets).items():
                    add(into, name, counts)
        return {**totals(sources.values()), **shared(sources, languages, origins)}

    def _times(self, slots: int) -> list[np.ndarray]:
        """For each store how often each of its rows is among the first `slots` slots."""
        times = self.mixture.times(slots)
        return np.split(times[0], self._joint[1:-1]) if self._is_joint else times

    def report(self, steps: int) -> list[dict[str, Any]]:
        """What `steps` steps draw of each store (see measured), and what its rows are like."""
        found = self.measured(steps)["sources"]
        return [
            {
                "source": source.name,
                "asked": found[source.name]["asked"],
                "rows": found[source.name]["rows"],
                "tokens": found[source.name]["tokens"],
                "share": found[source.name]["share"],
                "epochs": found[source.name]["epochs"],
                "fill": source.num_tokens / max(len(source) * self.row_length, 1),
                "shortened": source.shortened,
                "dropped": source.dropped,
                "filtered": source.filtered,
            }
            for source in self.sources
        ]


def stretch_of(rows: int, part: tuple[int, int]) -> slice:
    """The rows of part (r, n) of a step."""
    number, parts = part
    if rows % parts:
        raise RecipeError(
            f"the rows of a step cannot be shared out among {parts} processes",
            where="rows_per_step",
            wanted=f"a multiple of {parts}",
            got=rows,
        )
    return slice(number * rows // parts, (number + 1) * rows // parts)


def add(into: dict[str, dict[str, int]], name: str, counts: dict[str, int]) -> None:
    """Add the counts to those of `name`."""
    known = into.setdefault(name, dict.fromkeys(counts, 0))
    for key, value in counts.items():
        known[key] += value


def totals(sources: Iterable[dict[str, Any]]) -> dict[str, int]:
    rows = list(sources)
    return {key: sum(row[key] for row in rows) for key in ("rows", "tokens", "targets")}


def shared(sources: dict, languages: dict, origins: dict) -> dict[str, dict]:
    """The three tables of Loader.measured, each row with its share of the table's tokens."""
    out = {}
    for key, table in (("sources", sources), ("languages", languages), ("origins", origins)):
        whole = max(sum(row["tokens"] for row in table.values()), 1)
        out[key] = {name: row | {"share": row["tokens"] / whole} for name, row in table.items()}
    return out


def _by_label(
    names: list[str], codes: np.ndarray, tokens: np.ndarray, targets: np.ndarray
) -> dict[str, dict[str, int]]:
    # float64 sums are exact to 2^53 tokens
    sums = [np.bincount(codes, each, minlength=len(names)) for each in (tokens, targets)]
    return {
        name: {"tokens": int(sums[0][n]), "targets": int(sums[1][n])}
        for n, name in enumerate(names)
        if sums[0][n]
    }


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
