"""Rows seen before are dropped: exact duplicates and near duplicates, in one pass over a stream.

    row -> letters, marks, digits (data/decontaminate.normalised) -> digest          "exact"
                                                                  -> shingles -> MinHash -> LSH
                                                     candidates -> Jaccard of shingles   "near"

Exact: the same letters, marks and digits in the same order, white space, punctuation, symbols and
case apart (of a row without any: the same text). Of a conversation all turns and tool calls count.

Near: the Jaccard similarity J = |A n B| / |A u B| of two rows' sets of shingles reaches what was
asked. A shingle is two words running, or five characters where writing does not part words (Thai,
Lao, Khmer, Burmese, Han, kana ...) and in Hangul; a text in both has both kinds, each beginning at
its own unit. Hangul is cut by syllable because an eojeol carries its particles: at 5 % of the
characters changed, Korean petitions keep J = 0.62 in five syllables, 0.47 in two eojeol and 0.21 in
five, while unrelated ones stay below 0.1 (benchmarks/dedup.py measures what comes of it). A row of
fewer units than a shingle is one shingle.

MinHash and the LSH tables are rensa's. With b bands of r values two rows become candidates with

    P(J) = 1 - (1 - J^r)^b          Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4.2

and bands() takes the largest r for which P is at least FOUND at the similarity asked: the index may
propose too much, for every candidate is then compared shingle by shingle. That is exact for rows of
up to SAMPLE shingles; of a longer row the shingles whose hash lies below 2^32 / 2^k are kept, k the
least that leaves about SAMPLE, and two rows are compared below the lower limit of theirs: the same
sample of both, J without bias, standard deviation at most sqrt(J (1 - J) / (SAMPLE / 2)), 0.03.

What a row is compared with are the rows that were kept, so a chain of small changes ends where its
ends differ, and of each group the first stays. A kept row costs about 0.1 kB of memory for "exact" and,
measured on rows of a thousand words, 3.5 (similarity 0.9), 5.5 (0.7) or 7 kB (0.5) for "near": 2 kB of
them its sample, the rest its bands. Dropped rows cost nothing.
"""

import hashlib
import json
import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from endonym.core.errors import RecipeError
from endonym.data.decontaminate import ODD, powers, texts_of
from endonym.lang.script import script_of

WORDS, CHARACTERS = 2, 5
"""Units of a shingle that begins with a word, with a character."""
BY_CHARACTER = {
    *("Thai", "Laoo", "Khmr", "Mymr", "Java", "Bali", "Sund", "Tibt"),
    *("Hani", "Hira", "Kana", "Bopo", "Yiii", "Hang"),
}
"""Scripts (ISO 15924) of which each character is a unit."""
HASHES = 128
FOUND = 0.98
SAMPLE = 512
BATCH_CHARACTERS = 1 << 18

Shingle = Literal["auto", "words", "characters"]


def bands(similarity: float, hashes: int = HASHES, found: float = FOUND) -> tuple[int, int]:
    """(b, r) with b * r <= hashes: the largest r with 1 - (1 - s^r)^b >= found, r = 1 if there is none."""
    rows = [r for r in range(1, hashes + 1) if candidates(similarity, hashes // r, r) >= found]
    r = max(rows, default=1)
    return hashes // r, r


def candidates(similarity: float, b: int, r: int) -> float:
    """The probability that two rows of this Jaccard similarity share a band."""
    return 1 - (1 - similarity**r) ** b


class Deduplicator:
    """A memory of the rows that were kept, and the question which rows are new to it.

    exact:      drop rows with the same normalised text
    similarity: drop rows at least so similar to a kept one, above 0 to 1; None: look for none
    shingle:    "auto" by script as above; "words" or "characters" whatever the script
    counts:     rows by outcome: "kept", "exact", "near"

    May be called several times: the memory goes on.
    """

    def __init__(
        self,
        exact: bool = True,
        similarity: float | None = None,
        shingle: Shingle = "auto",
        seed: int = 0,
    ):
        if similarity is not None and not 0 < similarity <= 1:
            raise RecipeError("similarity is out of range", wanted="above 0, to 1", got=similarity)
        self.exact, self.similarity, self.seed = exact, similarity, seed
        self.counts: Counter[str] = Counter()
        self._units = _Units(shingle)
        self._digests: set[bytes] = set()
        self._samples: list[tuple[int, np.ndarray]] = []
        self._index = None
        if similarity is not None:
            from rensa import RMinHashLSH

            b, r = bands(similarity)
            self._hashes = b * r
            self._index = RMinHashLSH(similarity, self._hashes, b)

    def __call__(self, rows: Iterable[Any], most: int | None = None) -> Iterator[Any]:
        """The rows that are new, in order, at most `most`; about BATCH_CHARACTERS of text is read ahead.

        No more rows are looked at than may still be given out, so that none is remembered, and its like
        dropped later, that nobody got.
        """
        rows, left = iter(rows), math.inf if most is None else most
        while left > 0:
            batch, texts = _batch(rows, left)
            if not batch:
                return
            for row, outcome in zip(batch, self.outcomes(texts)):
                self.counts[outcome] += 1
                if outcome == "kept":
                    left -= 1
                    yield row

    def outcomes(self, texts: list[str]) -> list[str]:
        """For each text "kept", "exact" or "near", in the order in which they are remembered."""
        codes, owner, kinds = self._units.kinds_of(texts)
        found = ["kept"] * len(texts)
        if self.exact:
            for number, digest in enumerate(_digests(codes, owner, kinds, texts)):
                if digest in self._digests:
                    found[number] = "exact"
                self._digests.add(digest)
        if self._index is not None:
            shingles = self._units.shingles(codes, owner, kinds, len(texts))
            fresh = [number for number, outcome in enumerate(found) if outcome == "kept"]
            for number in self._near(fresh, shingles):
                found[number] = "near"
        return found

    def _near(self, numbers: list[int], shingles: list[np.ndarray]) -> Iterator[int]:
        """Those of `numbers` that resemble a row kept before; the others are remembered."""
        from rensa import RMinHash

        # rensa takes hashes of tokens as a matrix only, and answers for single rows of it whether
        # there are candidates, not which; as bytes a row's tokens make a sketch that can be asked.
        numbers = [number for number in numbers if len(shingles[number])]
        tokens = [shingles[number].view("V8").tolist() for number in numbers]
        sketches = RMinHash.from_token_sets(tokens, self._hashes, self.seed)
        for number, sketch in zip(numbers, sketches):
            sample = _sample(shingles[number])
            proposed = self._index.query(sketch)
            if any(jaccard(sample, self._samples[key]) >= self.similarity for key in proposed):
                yield number
            else:
                self._index.insert(len(self._samples), sketch)
                self._samples.append(sample)


class _Units:
    """Code points by kind, and the shingles that units of these kinds make."""

    def __init__(self, shingle: Shingle):
        self.shingle = shingle
        self._kinds = np.full(0x110000, 255, dtype=np.uint8)
        """0: parts words; 1: part of a word; 2: a unit of its own; 255: not seen yet."""

    def kinds_of(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of all texts, NFC, case-folded and joined: code points, the number of the text, kinds."""
        plain = [unicodedata.normalize("NFC", text).casefold() + "\0" for text in texts]
        joined = "".join(plain).encode("utf-32-le", "surrogatepass")
        codes = np.frombuffer(joined, dtype="<u4")
        kinds = self._kinds[codes]
        if (kinds == 255).any():
            for code in np.unique(codes[kinds == 255]).tolist():
                self._kinds[code] = self._kind(chr(code))
            kinds = self._kinds[codes]
        return codes, np.repeat(np.arange(len(texts)), [len(text) for text in plain]), kinds

    def _kind(self, character: str) -> int:
        if unicodedata.category(character)[0] not in "LMN":
            return 0
        if self.shingle == "auto":
            return 2 if script_of(character) in BY_CHARACTER else 1
        return 2 if self.shingle == "characters" else 1

    def shingles(
        self, codes: np.ndarray, owner: np.ndarray, kinds: np.ndarray, count: int
    ) -> list[np.ndarray]:
        """The hashes of each text's shingles, uint64, with repetitions; none for a text without units.

        A word's hash is sum_j mix(c_j) ODD^j modulo 2^64, a shingle's the same over its units.
        """
        inside = np.flatnonzero(kinds)
        if not len(inside):
            return [np.empty(0, np.uint64)] * count
        kind = kinds[inside]
        begins = kind == 2
        begins[0] = True
        begins[1:] |= (kind[:-1] == 2) | (np.diff(inside) > 1)
        starts = np.flatnonzero(begins)
        place = np.arange(len(inside)) - np.repeat(starts, np.diff(starts, append=len(inside)))
        whose, kind = owner[inside[starts]], kind[starts]
        edges = np.searchsorted(whose, np.arange(count + 1))
        left = np.repeat(edges[1:], np.diff(edges)) - np.arange(len(starts))
        length = np.where(kind == 2, CHARACTERS, WORDS)
        with np.errstate(over="ignore"):
            letters = _mixed(codes[inside].astype(np.uint64) + np.uint64(1))
            units = np.add.reduceat(letters * powers(ODD, int(place.max()) + 1)[place], starts)
            units = _mixed(units)
            sums, reach = units.copy(), np.minimum(length, left)
            for step, power in enumerate(powers(ODD, max(WORDS, CHARACTERS))[1:], start=1):
                sums[:-step] += units[step:] * (power * (reach[:-step] > step))
        whole = length <= left
        # A shingle that the text's end cuts off stands for a text that has no whole one.
        hashes, running = _mixed(sums), np.concatenate([[0], np.cumsum(whole)])
        return [
            hashes[low:high][whole[low:high]]
            if running[high] > running[low]
            else hashes[low:high][:1]
            for low, high in pairwise(edges)
        ]


def jaccard(one: tuple[int, np.ndarray], other: tuple[int, np.ndarray]) -> float:
    """The Jaccard similarity of two samples, over the hashes that both would have kept."""
    level = max(one[0], other[0])
    first, second = (_below(sample, level) for sample in (one, other))
    both = len(np.intersect1d(first, second, assume_unique=True))
    either = len(first) + len(second) - both
    return both / either if either else 0.0


def _sample(shingles: np.ndarray) -> tuple[int, np.ndarray]:
    """(k, the upper 32 bits of the different hashes that lie below 2^64 / 2^k, ascending)."""
    level = max(0, math.ceil(math.log2(len(shingles) / SAMPLE)))
    upper = (shingles >> np.uint64(32)).astype(np.uint32)
    return level, np.unique(upper[upper < 1 << (32 - level)])


def _below(sample: tuple[int, np.ndarray], level: int) -> np.ndarray:
    own, hashes = sample
    return hashes if own == level else hashes[: np.searchsorted(hashes, 1 << (32 - level))]


def _digests(
    codes: np.ndarray, owner: np.ndarray, kinds: np.ndarray, texts: list[str]
) -> Iterator[bytes]:
    """16 bytes of BLAKE2 of each text's letters, marks and digits; without any, of the text."""
    inside = np.flatnonzero(kinds)
    letters, edges = codes[inside], np.searchsorted(owner[inside], np.arange(len(texts) + 1))
    for text, (low, high) in zip(texts, pairwise(edges)):
        if low < high:
            yield hashlib.blake2b(letters[low:high].tobytes(), digest_size=16).digest()
        else:
            raw = b"text" + text.encode("utf-8", "surrogatepass")
            yield hashlib.blake2b(raw, digest_size=16).digest()


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


def _batch(rows: Iterator[Any], most: float) -> tuple[list[Any], list[str]]:
    """The next rows, at most `most` and about BATCH_CHARACTERS, and their texts."""
    batch, texts, size = [], [], 0
    while len(batch) < most and size < BATCH_CHARACTERS and (row := next(rows, None)) is not None:
        batch.append(row)
        texts.append(_text(row))
        size += len(texts[-1]) + 64
    return batch, texts


def _text(row: Any) -> str:
    """All that a row says, its turns a line each, what its tools are called with included."""
    calls = [
        json.dumps(turn["tool_calls"], ensure_ascii=False, sort_keys=True)
        for turn in getattr(row, "messages", [])
        if turn.get("tool_calls")
    ]
    return "\n".join([*texts_of(row), *calls])
