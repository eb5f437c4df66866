"""Training rows that hold an evaluation prompt are dropped, and counted by reason.

Texts are compared as their letters, marks and digits alone, NFC and case-folded; white space,
punctuation and symbols do not count. A row is dropped for

    "prompt"    it holds a whole prompt of at least 8 such characters (beside a digit at the
                prompt's edge no further digit may stand: "12 + 5" is not in "112 + 5");
    "same"      one of its texts is a prompt, however short;
    "shingles"  it holds at least half of the 50-character windows by which a prompt differs from
                the other prompts.

50 characters are about the 13 words of the usual n-gram rule (GPT-3, appendix C), counted so that
scripts without spaces are treated as those with. Windows found in more than three prompts are a
benchmark's own phrasing ("Answer with one letter only.") and count for nothing. Windows are found
by a rolling hash over all rows at once; whole prompts are then compared letter by letter.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from endonym.data.document import Conversation, Document

SHORTEST, WINDOWS = 8, (8, 16, 32)
SHINGLE, SHARE, PHRASING = 50, 0.5, 3
BATCH_CHARACTERS = 1 << 21
ODD = 0x9E3779B97F4A7C15
"""Multiplier of the rolling hash; odd, so that it can be divided by modulo 2^64."""


class _Kept(dict):
    """A str.translate table that drops all but letters, marks and digits."""

    def __missing__(self, code: int) -> int | None:
        self[code] = code if unicodedata.category(chr(code))[0] in "LMN" else None
        return self[code]


_KEPT = _Kept()


def normalised(text: str) -> str:
    """The letters, marks and digits of a text, NFC and case-folded."""
    return unicodedata.normalize("NFC", text).casefold().translate(_KEPT)


def texts_of(row: Document | Conversation) -> list[str]:
    """What of a row is compared: the document's text, every turn's content."""
    if isinstance(row, Document):
        return [row.text]
    return [turn["content"] for turn in row.messages if isinstance(turn.get("content"), str)]


class Decontaminator:
    """A set of evaluation prompts, and the question which rows hold one.

    counts: rows by reason, with "kept" for those that stayed.
    """

    def __init__(self, prompts: Iterable[str]):
        self.prompts = sorted({normalised(prompt) for prompt in prompts} - {""})
        self.counts: Counter[str] = Counter()
        self._whole = set(self.prompts)
        self._powers: tuple[np.ndarray, np.ndarray] | None = None
        codes, owner, _ = _joined([[prompt] for prompt in self.prompts])
        self._anchors: dict[int, dict[int, list[tuple[int, int]]]] = {}
        for window, longer in zip(WINDOWS, [*WINDOWS[1:], 1 << 60]):
            self._anchors[window] = self._rarest(codes, owner, window, longer)
        self._shingles = self._distinguishing(codes, owner)

    def __call__(self, rows: Iterable[Any]) -> Iterator[Any]:
        """The rows that hold no prompt, in order."""
        for batch in _batches(rows):
            for row, reason in zip(batch, self.reasons([texts_of(row) for row in batch])):
                self.counts[reason or "kept"] += 1
                if reason is None:
                    yield row

    def reasons(self, rows: list[list[str]]) -> list[str | None]:
        """For each row (a list of texts) why it must go, or None."""
        plain = [[normalised(text) for text in texts] for texts in rows]
        found: list[str | None] = [None] * len(rows)
        codes, owner, joined = _joined(plain)
        for row in self._overlapping(codes, owner):
            found[row] = "shingles"
        for row in self._containing(codes, joined, owner):
            found[row] = "prompt"
        for row, texts in enumerate(plain):
            if not self._whole.isdisjoint(texts):
                found[row] = "same"
        return found

    # --- whole prompts --------------------------------------------------------------------------

    def _rarest(self, codes: np.ndarray, owner: np.ndarray, window: int, longer: int) -> dict:
        """hash -> [(prompt, offset)]: for each prompt of this length class its least common window."""
        hashes, places = self._hashes(codes, window)
        common = Counter(hashes.tolist())
        anchors: dict[int, list[tuple[int, int]]] = defaultdict(list)
        starts = np.searchsorted(owner, np.arange(len(self.prompts)))
        for number, prompt in enumerate(self.prompts):
            if window <= len(prompt) < longer:
                low, high = np.searchsorted(places, [starts[number], starts[number] + len(prompt)])
                best = min(range(low, high), key=lambda at: common[int(hashes[at])])
                anchors[int(hashes[best])].append((number, int(places[best] - starts[number])))
        return dict(anchors)

    def _containing(self, codes: np.ndarray, joined: str, owner: np.ndarray) -> set[int]:
        rows: set[int] = set()
        for window, anchors in self._anchors.items():
            for value, place in self._hits(codes, window, anchors):
                if int(owner[place]) in rows:
                    continue
                for number, offset in anchors[value]:
                    if _stands(joined, place - offset, self.prompts[number]):
                        rows.add(int(owner[place]))
                        break
        return rows

    # --- shingles -------------------------------------------------------------------------------

    def _distinguishing(self, codes: np.ndarray, owner: np.ndarray) -> dict[int, list[int]]:
        """hash -> prompts, of windows that at most PHRASING prompts hold."""
        hashes, places = self._hashes(codes, SHINGLE)
        holders: dict[int, set[int]] = defaultdict(set)
        for value, number in zip(hashes.tolist(), owner[places].tolist()):
            holders[value].add(number)
        kept = {value: sorted(who) for value, who in holders.items() if len(who) <= PHRASING}
        self._needed = Counter(number for who in kept.values() for number in who)
        return kept

    def _overlapping(self, codes: np.ndarray, owner: np.ndarray) -> set[int]:
        seen: dict[tuple[int, int], set[int]] = defaultdict(set)
        for value, place in self._hits(codes, SHINGLE, self._shingles):
            for number in self._shingles[value]:
                seen[int(owner[place]), number].add(value)
        return {
            row for (row, number), held in seen.items() if len(held) >= SHARE * self._needed[number]
        }

    # --- rolling hash ---------------------------------------------------------------------------

    def _hits(self, codes: np.ndarray, window: int, known: dict) -> list[tuple[int, int]]:
        """(hash, place) of every window of `codes` whose hash is known."""
        if not known:
            return []
        hashes, places = self._hashes(codes, window)
        wanted = np.fromiter(known, dtype=np.uint64, count=len(known))
        table = np.zeros(1 << 20, dtype=bool)  # most windows are ruled out by 20 bits of theirs
        table[wanted >> np.uint64(44)] = True
        near = np.flatnonzero(table[hashes >> np.uint64(44)])
        near = near[np.isin(hashes[near], wanted)]
        return list(zip(hashes[near].tolist(), places[near].tolist()))

    def _hashes(self, codes: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
        """(hash, place) of each window that lies within one text (0 parts texts).

        h = sum_j mix(c[i + j]) * ODD^j modulo 2^64, from one running sum: (S[i + w] - S[i]) / ODD^i.
        """
        if len(codes) < window:
            return np.empty(0, np.uint64), np.empty(0, np.int64)
        ahead, back = self._power_tables(len(codes))
        with np.errstate(over="ignore"):
            mixed = (codes + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(29)
            sums = np.concatenate([[np.uint64(0)], np.cumsum(mixed * ahead[: len(codes)])])
            hashes = (sums[window:] - sums[:-window]) * back[: len(codes) - window + 1]
        breaks = np.concatenate([[0], np.cumsum(codes == 0)])
        places = np.flatnonzero(breaks[window:] == breaks[:-window])
        hashes = hashes[places]
        return (hashes ^ (hashes >> np.uint64(31))) * np.uint64(ODD), places

    def _power_tables(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        if self._powers is None or len(self._powers[0]) < size:
            size = max(size, BATCH_CHARACTERS)
            self._powers = _powers(ODD, size), _powers(pow(ODD, -1, 1 << 64), size)
        return self._powers


def _powers(base: int, size: int) -> np.ndarray:
    """base^0, base^1, ... modulo 2^64."""
    factors = np.full(size, base, dtype=np.uint64)
    factors[0] = 1
    with np.errstate(over="ignore"):
        return np.cumprod(factors)


def _joined(rows: list[list[str]]) -> tuple[np.ndarray, np.ndarray, str]:
    """All texts one after another with U+0000 after each: code points, the row of each, the string."""
    joined = "".join(text + "\0" for texts in rows for text in texts)
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    sizes = [sum(len(text) + 1 for text in texts) for texts in rows]
    return codes.astype(np.uint64), np.repeat(np.arange(len(rows)), sizes), joined


def _stands(joined: str, place: int, prompt: str) -> bool:
    """Whether `prompt` stands at `place`, with no digit going on beyond its own."""
    if place < 0 or not joined.startswith(prompt, place):
        return False
    before, after = joined[place - 1 : place], joined[place + len(prompt) : place + len(prompt) + 1]
    goes_on = (prompt[0].isdigit() and before.isdigit(), prompt[-1].isdigit() and after.isdigit())
    return not any(goes_on)


def _batches(rows: Iterable[Any]) -> Iterator[list[Any]]:
    batch, size = [], 0
    for row in rows:
        batch.append(row)
        size += sum(map(len, texts_of(row)))
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
