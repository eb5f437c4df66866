"""One answer cut by two tokenizers, and the places where both have cut it.

ours    the | n e w  | est        spans    the | newest
theirs  the | newest
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from endonym.rollouts.vocabularies import markers
from endonym.tokenizer.folder import Tokenizer


@dataclass(frozen=True)
class Span:
    """Tokens [first, last) of the student's answer, and [begin, end) of the teacher's: the same bytes."""

    first: int
    last: int
    begin: int
    end: int


class Boundaries:
    """Of two tokenizers, by the bytes of their tokens (vocabularies.markers)."""

    def __init__(self, student: Tokenizer, teacher: Tokenizer):
        self._ours, self._theirs = markers(student), markers(teacher)

    def spans(self, ours: Sequence[int], theirs: Sequence[int]) -> list[Span]:
        """The spans of two answers, in order, as far as their bytes agree."""
        mine, other = ([table[int(n)] for n in ids] for table, ids in (
            (self._ours, ours), (self._theirs, theirs),
        ))  # fmt: skip
        texts = [np.frombuffer(b"".join(each), np.uint8) for each in (mine, other)]
        length = min(map(len, texts))
        differ = np.flatnonzero(texts[0][:length] != texts[1][:length])
        agreed = int(differ[0]) if len(differ) else length
        ends = [np.cumsum([len(text) for text in each]) for each in (mine, other)]
        found, first, begin = [], 0, 0
        for place in np.intersect1d(*ends).tolist():
            if place > agreed:
                break
            last, end = (int(np.searchsorted(each, place, side="right")) for each in ends)
            found.append(Span(first, last, begin, end))
            first, begin = last, end
        return found
