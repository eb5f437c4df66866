"""Training rows for pairs: both answers of a pair in one row, each blind to the other.

    preferences -> PairStore (ids, once) -> Packed (rows of whole pairs) -> PairLoader.rows(step)

Every side is prompt and answer together, rendered by the chat template in one piece, as TRL's
RewardTrainer and vLLM read it. Shapes: B rows, T time, P pairs.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from endonym.core.artifact import describe_files
from endonym.core.errors import DataError
from endonym.data.document import Preference
from endonym.data.loader import Loader, stretch_of
from endonym.data.pack import Pieces, best_fit
from endonym.data.packed import Packed
from endonym.data.shard import Labels, compare, read_meta, write_meta

if TYPE_CHECKING:
    from endonym.methods.batch import Rows
    from endonym.tokenizer.folder import Tokenizer

FORMAT = 1
CHOSEN, REJECTED = 1, 0


class PairStore:
    """Pairs on disk, memory-mapped: the ids of pair n's chosen side, then those of its rejected one.

    ids.bin (uint32), offsets.npy (int64 [2 P + 1], where each side begins), margins.npy (float32 [P],
    0 where the row gave none), languages.npy and sources.npy as in data/shard.py.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.meta = read_meta(self.folder)
        compare(self.folder, self.meta["files"], full=False)
        self.offsets = np.load(self.folder / "offsets.npy")
        self.margins = np.load(self.folder / "margins.npy")
        file = self.folder / "ids.bin"
        empty = file.stat().st_size == 0  # which cannot be mapped
        self.ids = np.empty(0, np.uint32) if empty else np.memmap(file, np.uint32, mode="r")
        self.languages, self.sources = (
            Labels(self.meta[name], np.load(self.folder / f"{name}.npy"))
            for name in ("languages", "sources")
        )

    def __len__(self) -> int:
        return len(self.margins)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def identity(self) -> str:
        return self.meta["identity"]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each pair, both sides together, [P] int64."""
        return np.diff(self.offsets[::2])

    def sides(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the chosen and of the rejected side of a pair."""
        begin, middle, end = self.offsets[2 * number : 2 * number + 3]
        return self.ids[begin:middle], self.ids[middle:end]

    @classmethod
    def build(
        cls, folder: Path | str, rows: Iterable[Preference], tokenizer: "Tokenizer", *, key: str
    ) -> "PairStore":
        """The store of `rows` at `folder`; key names their content. As TokenStore.build: what stands
        there already is used again, and a kill leaves no half store.

        Pairs whose sides come out as the same ids teach nothing; they are left out and counted.
        """
        folder = Path(folder)
        told = f"pairs {FORMAT} {key} {tokenizer.identity}"
        identity = hashlib.sha256(told.encode()).hexdigest()
        if (folder / "meta.json").is_file() and read_meta(folder).get("identity") == identity:
            return cls(folder)
        aside = folder.with_name(folder.name + ".partial")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        meta = _write(aside, rows, tokenizer) | {"identity": identity, "key": key}
        write_meta(aside, meta | {"files": describe_files(aside)})
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
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
    lengths: list[int] = []
    margins: list[float] = []
    labels: dict[str, tuple[dict[str, int], list[int]]] = {
        "languages": ({}, []),
        "sources": ({}, []),
    }
    equal = 0
    with (folder / "ids.bin").open("wb") as ids:
        for pair in rows:
            both = sides(tokenizer, pair)
            if both[0] == both[1]:
                equal += 1
                continue
            for side in both:
                ids.write(np.asarray(side, np.uint32).tobytes())
                lengths.append(len(side))
            margins.append(pair.margin or 0.0)
            for name, label in (("languages", pair.language), ("sources", pair.source)):
                names, codes = labels[name]
                codes.append(names.setdefault(label, len(names)))
    np.save(folder / "offsets.npy", np.cumsum([0, *lengths], dtype=np.int64))
    np.save(folder / "margins.npy", np.asarray(margins, np.float32))
    for name, (_, codes) in labels.items():
        np.save(folder / f"{name}.npy", np.asarray(codes, np.int32))
    return {
        "kind": "pairs",
        "pairs": len(margins),
        "tokens": sum(lengths),
        "equal": equal,
        **{name: list(names) for name, (names, _) in labels.items()},
    }


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
                for side, label in zip(source.store.sides(pair), (CHOSEN, REJECTED)):
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
