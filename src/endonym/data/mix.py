"""The order of training rows as a pure function of (seed, slot): nothing to save, nothing to skip.

Slots are numbered from 0 for a whole run. Blocks of slots hold each source a fixed number of times
(largest remainder of its weight), in an order shuffled by (seed, block); the k-th time a source is
drawn gives row permutation(seed, source, k // rows)[k % rows], so that every row comes once an
epoch and each epoch has its own order. Slot n costs the same whether n is ten or ten billion.
"""

from dataclasses import dataclass

import numpy as np

from endonym.core.errors import RecipeError

LARGEST_BLOCK = 1024
TOLERANCE = 0.002
"""A block's share of a source may differ from its weight by this much, relative to 1."""


def largest_remainder(weights: np.ndarray, slots: int) -> np.ndarray:
    """Whole counts that sum to `slots` and are nearest to weights * slots (Hamilton's method)."""
    exact = weights / weights.sum() * slots
    counts = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(-(exact - counts), kind="stable")
    counts[by_remainder[: slots - counts.sum()]] += 1
    return counts


@dataclass(frozen=True)
class Mixture:
    """Sources with `sizes` rows each, drawn by `weights`.

    counts: how often a block holds each source. The block is the shortest whose shares are within
    TOLERANCE of the weights, so that even short stretches of a run keep the mixture.
    """

    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    seed: int

    @classmethod
    def of(cls, sizes: list[int], weights: list[float] | None, seed: int) -> "Mixture":
        """weights None: by size, so that all sources finish their epochs together."""
        wanted = np.asarray(sizes if weights is None else weights, dtype=np.float64)
        if len(wanted) != len(sizes) or not len(sizes):
            raise RecipeError("one weight is needed per source", wanted=len(sizes), got=len(wanted))
        if (wanted < 0).any() or not np.isfinite(wanted).all() or wanted.sum() == 0:
            raise RecipeError(
                "weights must be numbers from 0, not all 0", got=list(map(float, wanted))
            )
        for index, (size, weight) in enumerate(zip(sizes, wanted)):
            if weight > 0 and size == 0:
                raise RecipeError(f"source {index} has a weight but no rows", got=float(weight))
        shares = wanted / wanted.sum()
        for block in range(1, LARGEST_BLOCK + 1):
            counts = largest_remainder(shares, block)
            near = np.abs(counts / block - shares).max() <= TOLERANCE
            if near and (counts[shares > 0] > 0).all():
                return cls(tuple(sizes), tuple(counts.tolist()), seed)
        raise RecipeError(
            f"a weight is too small for blocks of {LARGEST_BLOCK} rows",
            wanted=f"shares of at least about 1/{LARGEST_BLOCK}",
            got=[round(float(share), 6) for share in shares],
            do="join small sources into one",
        )

    @property
    def block(self) -> int:
        return sum(self.counts)

    def at(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(source, row) of each slot, both [N] int64."""
        slots = np.asarray(slots, dtype=np.int64)
        source, turn = np.empty_like(slots), np.empty_like(slots)
        blocks, within = np.divmod(slots, self.block)
        for block in np.unique(blocks):
            layout, rank = self._layout(int(block))
            here = blocks == block
            source[here] = layout[within[here]]
            turn[here] = block * np.asarray(self.counts)[source[here]] + rank[within[here]]
        row = np.empty_like(slots)
        for number in np.unique(source):
            here = source == number
            epoch, place = np.divmod(turn[here], self.sizes[number])
            row[here] = permuted(place, self.sizes[number], (self.seed, int(number)), epoch)
        return source, row

    def _layout(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """The sources of one block in order, and the how-manieth of its source each slot is."""
        sources = np.repeat(np.arange(len(self.counts)), self.counts)
        keys = _hash(np.arange(self.block, dtype=np.uint64), _key(self.seed, block))
        layout = sources[np.argsort(keys, kind="stable")]
        rank = np.empty_like(layout)
        for number in range(len(self.counts)):
            rank[layout == number] = np.arange(self.counts[number])
        return layout, rank

    def drawn(self, slots: int) -> list[int]:
        """How often each source stands among the first `slots` slots."""
        blocks, rest = divmod(slots, self.block)
        layout, _ = self._layout(blocks)
        tail = np.bincount(layout[:rest], minlength=len(self.counts))
        return (blocks * np.asarray(self.counts) + tail).tolist()

    def epochs(self, slots: int) -> list[float]:
        """How often each source has been seen after `slots` slots."""
        return [n / size if size else 0.0 for n, size in zip(self.drawn(slots), self.sizes)]


def permuted(
    places: np.ndarray, size: int, key: tuple[int, ...], epochs: np.ndarray | int
) -> np.ndarray:
    """places[i]'s image under a permutation of range(size) chosen by (key, epochs[i]); no table is kept.

    A four-round Feistel network permutes the next power of four; images outside range(size) are
    sent through again until they fall inside (cycle walking: Black and Rogaway, Ciphers with
    arbitrary finite domains, 2002), which keeps it a permutation. At most four rounds on average.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    places = np.asarray(places, dtype=np.uint64)
    epochs = np.broadcast_to(np.asarray(epochs, dtype=np.uint64), places.shape)
    base = _hash(epochs, _key(*key))
    result, going = places.copy(), np.arange(len(places))
    while len(going):
        left, right = result[going] >> np.uint64(half), result[going] & mask
        for turn in range(4):
            mixed = _hash(right ^ _hash(base[going], turn + 1), turn + 1) & mask
            left, right = right, left ^ mixed
        result[going] = (left << np.uint64(half)) | right
        going = going[result[going] >= size]
    return result.astype(np.int64)


def _key(*parts: int) -> int:
    key = 0x9E3779B97F4A7C15
    for part in parts:
        key = int(_hash(np.array([part & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64), key)[0])
    return key


def _hash(values: np.ndarray, key: int) -> np.ndarray:
    """splitmix64 of values + key * odd constant (Steele, Lea, Flood 2014): cheap and well mixed."""
    with np.errstate(over="ignore"):
        z = values + np.uint64(key * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
