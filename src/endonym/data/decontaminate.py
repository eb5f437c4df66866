"""Training rows that hold an evaluation prompt are dropped, and counted by reason and by exam.

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
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

SHORTEST, WINDOWS = 8, (8, 16, 32)
SHINGLE, SHARE, PHRASING = 50, 0.5, 3
BATCH_CHARACTERS = 1 << 21
REASONS = ("shingles", "prompt", "same")
"""From the weakest to the strongest."""
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


MESSAGES = ("messages", "prompt", "chosen", "rejected", "completion")
"""Fields of a row (data/document.py) that hold lists of messages."""


def texts_of(row: Any) -> list[str]:
    """What of a row is compared: a document's text, the content of every message of any other row."""
    if hasattr(row, "text"):
        return [row.text]
    turns = [turn for name in MESSAGES for turn in getattr(row, name, ())]
    return [turn["content"] for turn in turns if isinstance(turn.get("content"), str)]


class Decontaminator:
    """A set of evaluation prompts, and the question which rows hold one.

    prompts: of one exam, or of several by the exam's name
    counts:  rows by reason, with "kept" for those that stayed
    by_exam: exam -> reason -> rows that were dropped for it; a row that holds prompts of two exams
             counts for both, for each with its own reason. Prompts without an exam's name: ""
    """

    def __init__(self, prompts: Iterable[str] | Mapping[str, Iterable[str]]):
        exams: dict[str, list[str]] = defaultdict(list)
        for exam, texts in prompts.items() if isinstance(prompts, Mapping) else [("", prompts)]:
            for prompt in {normalised(text) for text in texts} - {""}:
                exams[prompt].append(exam)
        self.prompts = sorted(exams)
        self._exams = [exams[prompt] for prompt in self.prompts]
        self.counts: Counter[str] = Counter()
        self.by_exam: dict[str, Counter[str]] = defaultdict(Counter)
        self._whole = {prompt: number for number, prompt in enumerate(self.prompts)}
        self._powers: tuple[np.ndarray, np.ndarray] | None = None
        codes, owner, _ = _joined([[prompt] for prompt in self.prompts])
        self._anchors: dict[int, dict[int, list[tuple[int, int]]]] = {}
        for window, longer in zip(WINDOWS, [*WINDOWS[1:], 1 << 60]):
            self._anchors[window] = self._rarest(codes, owner, window, longer)
        self._shingles = self._distinguishing(codes, owner)

    def __call__(self, rows: Iterable[Any]) -> Iterator[Any]:
        """The rows that hold no prompt, in order."""
        for batch in _batches(rows):
            for row, held in zip(batch, self.held([texts_of(row) for row in batch])):
                self.counts[_strongest(held) or "kept"] += 1
                for exam, reason in held.items():
                    self.by_exam[exam][reason] += 1
                if not held:
                    yield row

    def reasons(self, rows: list[list[str]]) -> list[str | None]:
        """For each row (a list of texts) why it must go, or None."""
        return [_strongest(held) for held in self.held(rows)]

    def held(self, rows: list[list[str]]) -> list[dict[str, str]]:
        """For each row the exams of which it holds a prompt, each with the strongest reason."""
        found: list[dict[str, str]] = [{} for _ in rows]
        if not self.prompts:
            return found
        plain = [[normalised(text) for text in texts] for texts in rows]
        codes, owner, joined = _joined(plain)
        hits = {
            "shingles": self._overlapping(codes, owner),
            "prompt": self._containing(codes, joined, owner),
            "same": {
                (row, self._whole[text])
                for row, texts in enumerate(plain)
                for text in texts
                if text in self._whole
            },
        }
        for reason in REASONS:
            for row, number in sorted(hits[reason]):
                found[row] |= dict.fromkeys(self._exams[number], reason)
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

    def _containing(
        self, codes: np.ndarray, joined: str, owner: np.ndarray
    ) -> set[tuple[int, int]]:
        """(row, prompt) for each whole prompt that stands in a row."""
        pairs: set[tuple[int, int]] = set()
        for window, anchors in self._anchors.items():
            for value, place in self._hits(codes, window, anchors):
                for number, offset in anchors[value]:
                    pair = int(owner[place]), number
                    if pair not in pairs and _stands(joined, place - offset, self.prompts[number]):
                        pairs.add(pair)
        return pairs

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

    def _overlapping(self, codes: np.ndarray, owner: np.ndarray) -> set[tuple[int, int]]:
        """(row, prompt) for each prompt of whose distinguishing windows a row holds SHARE."""
        seen: dict[tuple[int, int], set[int]] = defaultdict(set)
        for value, place in self._hits(codes, SHINGLE, self._shingles):
            for number in self._shingles[value]:
                seen[int(owner[place]), number].add(value)
        return {pair for pair, held in seen.items() if len(held) >= SHARE * self._needed[pair[1]]}

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
            self._powers = powers(ODD, size), powers(pow(ODD, -1, 1 << 64), size)
        return self._powers


def _strongest(held: dict[str, str]) -> str | None:
    """The last of REASONS among those of a row's exams."""
    return max(held.values(), key=REASONS.index, default=None)


def powers(base: int, size: int) -> np.ndarray:
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
