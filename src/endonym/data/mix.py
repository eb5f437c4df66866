"""The order of training rows as a pure function of (seed, slot): nothing to save, nothing to skip.

Slots are numbered from 0 for a whole run. Blocks of slots hold each source a fixed number of times
(largest remainder of its weight), in an order shuffled by (seed, block); the k-th time a source is
drawn gives row permutation(seed, source, k // rows)[k % rows], so that every row comes once an
epoch and each epoch has its own order. Slot n costs the same whether n is ten or ten billion.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from endonym.core.errors import RecipeError

LARGEST_BLOCK = 1024
TOLERANCE = 0.002
"""A block's share of a source may differ from its weight by this much, relative to 1."""
FINEST_BLOCK = 1 << 16
FINE = 0.01
"""In a fine mixture also by at most this much, relative to the weight."""


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
            TOLERANCE of the weights, so that even short stretches of a run keep the mixture
    keys:   with the seed, what a source's own order hangs on
    after:  rows that were drawn from each source before slot 0: the k-th draw here is its
            (after + k)-th, so that rows not seen yet come first
    fine:   shares are also within FINE of each weight, as far as blocks of FINEST_BLOCK slots can be,
            and a block holds each source spread evenly: any stretch of n slots holds its share of n
            but for a few rows
    """

    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    seed: int
    keys: tuple[int, ...]
    after: tuple[int, ...]
    fine: bool = False

    @classmethod
    def of(
        cls,
        sizes: list[int],
        weights: list[float] | None,
        seed: int,
        *,
        keys: list[int] | None = None,
        after: list[int] | None = None,
        fine: bool = False,
    ) -> "Mixture":
        """weights None: by size, so that all sources finish their epochs together. keys None: places."""
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
        shares, most = wanted / wanted.sum(), FINEST_BLOCK if fine else LARGEST_BLOCK
        lengths = [*range(1, LARGEST_BLOCK + 1)]
        lengths += [1 << bits for bits in range(LARGEST_BLOCK.bit_length(), most.bit_length())]
        near = np.minimum(TOLERANCE, FINE * shares) if fine else TOLERANCE
        for block in lengths:
            counts = largest_remainder(shares, block)
            is_near = (np.abs(counts / block - shares) <= near).all()
            if (counts[shares > 0] > 0).all() and (is_near or block == FINEST_BLOCK):
                return cls(
                    tuple(sizes),
                    tuple(counts.tolist()),
                    seed,
                    tuple(keys or range(len(sizes))),
                    tuple(after or [0] * len(sizes)),
                    fine,
                )
        raise RecipeError(
            f"a weight is too small for blocks of {most} rows",
            wanted=f"shares of at least about 1/{most}",
            got=[round(float(share), 6) for share in shares],
            do="join small sources into one",
        )

    @property
    def block(self) -> int:
        return sum(self.counts)

    def at(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(source, row) of each slot, both [N] int64."""
        slots = np.asarray(slots, dtype=np.int64)
        blocks, within = np.divmod(slots, self.block)
        numbers, place = np.unique(blocks, return_inverse=True)
        layout, rank = _layouts(self.counts, self.seed, tuple(numbers.tolist()), self.fine)
        source = layout[place, within]
        turn = blocks * np.asarray(self.counts)[source] + rank[place, within]
        turn += np.asarray(self.after)[source]
        row = np.empty_like(slots)
        for number in np.unique(source):
            here = source == number
            epoch, place = np.divmod(turn[here], self.sizes[number])
            row[here] = permuted(place, self.sizes[number], (self.seed, self.keys[number]), epoch)
        return source, row

    def drawn(self, slots: int) -> list[int]:
        """How often each source stands among the first `slots` slots."""
        blocks, rest = divmod(slots, self.block)
        layout, _ = _layouts(self.counts, self.seed, (blocks,), self.fine)
        tail = np.bincount(layout[0, :rest], minlength=len(self.counts))
        return (blocks * np.asarray(self.counts) + tail).tolist()

    def epochs(self, slots: int) -> list[float]:
        """How often each source has been seen after `slots` slots, `after` included."""
        return [
            (done + n) / size if size else 0.0
            for n, size, done in zip(self.drawn(slots), self.sizes, self.after)
        ]

    def times(self, slots: int) -> list[np.ndarray]:
        """For each source how often the first `slots` slots draw each of its rows, [size] int64.

        Whole epochs draw every row once, so that only the first and the last are looked at: the cost
        does not grow with `slots`.
        """
        return [
            self._until(number, done + n) - self._until(number, done)
            for number, (n, done) in enumerate(zip(self.drawn(slots), self.after))
        ]

    def _until(self, number: int, turns: int) -> np.ndarray:
        """How often the first `turns` draws of a source take each of its rows."""
        size = self.sizes[number]
        if not size:
            return np.zeros(0, np.int64)
        epoch, rest = divmod(turns, size)
        counts = np.full(size, epoch, np.int64)
        counts[permuted(np.arange(rest), size, (self.seed, self.keys[number]), epoch)] += 1
        return counts


@lru_cache(maxsize=8)
def _layouts(
    counts: tuple[int, ...], seed: int, blocks: tuple[int, ...], fine: bool
) -> tuple[np.ndarray, np.ndarray]:
    """For each block the sources of its slots, and the how-manieth of its source each slot is in it.

    Both [blocks, slots]. The order is that of hashed keys; in a fine mixture the k-th of a source's c
    slots has the key (k + u) / c, u in [0, 1) by hash.
    """
    sources = np.repeat(np.arange(len(counts)), counts)
    own = _hash(np.array(blocks, np.uint64), _key(seed))[:, None]
    keys = _hash(np.arange(len(sources), dtype=np.uint64)[None], own)
    firsts = np.cumsum(counts) - counts
    if fine:
        within = np.arange(len(sources)) - firsts[sources]
        keys = (within + keys / 2.0**64) / np.asarray(counts)[sources]
    layout = sources[np.argsort(keys, axis=1, kind="stable")]
    by_source = np.argsort(layout, axis=1, kind="stable")
    rank = np.empty_like(layout)
    # sorted by source, every block reads like `sources`
    np.put_along_axis(rank, by_source, (np.arange(len(sources)) - firsts[sources])[None], axis=1)
    return layout, rank


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


def scattered(numbers: np.ndarray) -> np.ndarray:
    """A hash of each number, uint64: an order that has nothing to do with theirs."""
    return _hash(numbers.astype(np.uint64), 0)


def _key(*parts: int) -> int:
    key = 0x9E3779B97F4A7C15
    for part in parts:
        key = int(_hash(np.array([part & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64), key)[0])
    return key


def _hash(values: np.ndarray, key: int | np.ndarray) -> np.ndarray:
    """splitmix64 of values + key * odd constant (Steele, Lea, Flood 2014): cheap and well mixed."""
    with np.errstate(over="ignore"):
        z = values + np.asarray(key, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
