"""Training rows for pairs: both answers of a pair in one row, each blind to the other.

    preferences -> PairStore (ids, once) -> Packed (rows of whole pairs) -> PairLoader.rows(step)

Every side is prompt and answer together, rendered by the chat template in one piece, as TRL's
RewardTrainer and vLLM read it. Shapes: B rows, T time, P pairs.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from endonym.core.errors import DataError
from endonym.data.document import Preference
from endonym.data.loader import Loader, stretch_of
from endonym.data.pack import Pieces, best_fit
from endonym.data.packed import Packed
from endonym.data.shard import built
from endonym.data.twofold import Twofold, write

if TYPE_CHECKING:
    from endonym.methods.batch import Rows
    from endonym.tokenizer.folder import Tokenizer

FORMAT = 1
CHOSEN, REJECTED = 1, 0


class PairStore(Twofold):
    """Pairs on disk (data/twofold.py): the chosen side of each, then the rejected one; and margins.npy,
    float32 [P], 0 where the row gave none."""

    def __init__(self, folder: Path | str):
        super().__init__(folder)
        self.margins = np.load(self.folder / "margins.npy")

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each pair, both sides together, [P] int64."""
        return np.diff(self.offsets[::2])

    @classmethod
    def build(
        cls, folder: Path | str, rows: Iterable[Preference], tokenizer: "Tokenizer", *, key: str
    ) -> "PairStore":
        """The store of `rows` at `folder`; key names their content. What stands there already is used
        again (data/shard.built).

        Pairs whose sides come out as the same ids teach nothing; they are left out and counted.
        """
        folder = Path(folder)
        told = f"pairs {FORMAT} {key} {tokenizer.identity}"
        identity = hashlib.sha256(told.encode()).hexdigest()
        built(folder, identity, lambda aside: _write(aside, rows, tokenizer) | {"key": key})
        return cls(folder)


def sides(tokenizer: "Tokenizer", pair: Preference) -> tuple[list[int], list[int]]:
    """Ids of prompt and chosen answer, and of prompt and rejected answer. DataError names the pair."""
    try:
        chosen, rejected = (
            tokenizer.encode_whole([*pair.prompt, *answer], tools=pair.tools or None)
            for answer in (pair.chosen, pair.rejected)
        )
    except DataError as error:
        raise DataError(
            f"pair {pair.id} cannot be read: {error.what}",
            where=error.where, wanted=error.wanted, got=error.got, do=error.do,
        ) from None  # fmt: skip
    return chosen, rejected


def padding(tokenizer: "Tokenizer") -> str:
    """A token to pad rewarded texts with: the tokenizer's own pad token, or another control token,
    that no rendered conversation ends with.

    transformers takes a classifier's score at the last token that is not padding, and so at the wrong
    place where a text ends with that very token (pad_token = eos_token is common).
    """
    from endonym.tokenizer.folder import DOCUMENT_ENDS

    last = tokenizer.encode_whole(
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    )[-1]
    named = tokenizer.named
    wishes = [named.get("pad_token"), *DOCUMENT_ENDS, *named.values()]
    for token in wishes:
        number = None if token is None else tokenizer.backend.token_to_id(token)
        if number is not None and number != last:
            return token
    raise DataError(
        "the tokenizer has no token to pad rewarded texts with",
        wanted="a pad_token that does not end a conversation",
        got=", ".join(named.values()),
        do="add one to the tokenizer",
    )


def _write(folder: Path, rows: Iterable[Preference], tokenizer: "Tokenizer") -> dict[str, Any]:
    margins: list[float] = []
    equal = 0

    def differing() -> Iterator[tuple[tuple[list[int], list[int]], str, str]]:
        nonlocal equal
        for pair in rows:
            both = sides(tokenizer, pair)
            if both[0] == both[1]:
                equal += 1
                continue
            margins.append(pair.margin or 0.0)
            yield both, pair.language, pair.source

    meta = write(folder, differing())
    np.save(folder / "margins.npy", np.asarray(margins, np.float32))
    return {"kind": "pairs", "pairs": len(margins), "equal": equal, **meta}


class PairLoader(Loader):
    """Packed rows of whole pairs: every pair of every store once an epoch (data/loader.py).

    A pair longer than a row, both sides together, is left out and counted as dropped: cut off, it
    would no longer be what somebody compared. (TRL leaves out pairs with a side above max_length.)
    """

    def __init__(
        self, stores: Sequence[PairStore], *, rows_per_step: int, row_length: int, seed: int = 0
    ):
        super().__init__(
            [_packed(store, row_length) for store in stores],
            rows_per_step=rows_per_step,
            row_length=row_length,
            seed=seed,
        )

    def rows(self, step: int, part: tuple[int, int] = (0, 1)) -> "Rows":
        """The rows of a step, or part (r, n) of them, as Loader.rows.

        Sides are segments of their own, chosen before rejected, one pair after the other. Where a side
        ends, weights are 1, labels CHOSEN or REJECTED and extra["margin"] the pair's; elsewhere all 0.
        """
        import torch

        from endonym.methods.batch import Rows

        places, mine = self.places(step), stretch_of(self.rows_per_step, part)
        longest = max(int(self.sources[number].inputs[row]) for number, row in places)
        shape = (mine.stop - mine.start, min(-(-longest // 8) * 8, self.row_length))
        whole = [np.zeros(shape, np.int64) for _ in range(4)]
        tokens, labels, segments, positions = whole
        weights, margins = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for line, (number, row) in enumerate(places[mine]):
            source, at, segment = self.sources[number], 0, 0
            for piece in source.packing.row(row).tolist():
                pair = int(source.pieces.sequence[piece])
                for side, label in zip(source.store.both(pair), (CHOSEN, REJECTED)):
                    here, at, segment = slice(at, at + len(side)), at + len(side), segment + 1
                    tokens[line, here], segments[line, here] = side, segment
                    positions[line, here] = np.arange(len(side))
                    labels[line, at - 1], weights[line, at - 1] = label, 1.0
                    margins[line, at - 1] = source.store.margins[pair]
        parts = (tokens, labels, weights, segments, positions, margins)
        *plain, margin = map(torch.from_numpy, parts)
        return Rows(*plain, extra={"margin": margin})


def _packed(store: PairStore, row_length: int) -> Packed:
    lengths = store.lengths
    kept = np.flatnonzero(lengths <= row_length)
    pieces = Pieces(kept, np.zeros(len(kept), np.int64), lengths[kept])
    packing = best_fit(pieces.length, row_length)
    told = json.dumps([store.identity, len(store), row_length])
    return Packed(
        name=store.name,
        store=store,
        pieces=pieces,
        packing=packing,
        inputs=np.diff(np.cumsum([0, *pieces.length[packing.order]])[packing.offsets]),
        targets=np.ones(len(kept), np.int64),
        identity=hashlib.sha256(told.encode()).hexdigest(),
        shortened=0,
        dropped=len(store) - len(kept),
        filtered=0,
    )
