"""BM25 over the words of a language: which texts fit a query best.

bm25s (Lù 2024, arXiv:2407.03618) does the arithmetic; it is always given lists of words, for its own
tokenizer tears Thai apart. Words are the language's (lang/segment.py): dictionary words in Thai, morphemes
in Korean, where a noun and its particle are one eojeol; else what stands between spaces. A language
written without spaces and without a segmenter here is cut into pairs of graphemes, as Chinese and
Japanese are in search engines that have no dictionary. Latin words and numbers inside a text are words of
their own; case is folded; digits of any script count as 0-9.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import regex

from endonym.lang.citations import western
from endonym.lang.normalize import compose
from endonym.lang.pack import pack
from endonym.lang.segment import graphemes, words

PIECE = regex.compile(r"[\p{L}\p{M}\p{N}]+")


class WordsIndex:
    """Texts by their words.

    rankings(queries, n) gives for each query the numbers of at most n texts that share a word with it,
    the best first, equals in the texts' order.
    """

    def __init__(self, texts: Sequence[str], language: str):
        import bm25s

        self.cut = cutter(language)
        # Lucene's BM25 with its constants, bm25s' default
        self.index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
        self.index.index([self.cut(text) for text in texts], show_progress=False)

    def rankings(self, queries: Sequence[str], depth: int) -> list[list[int]]:
        return [self._ranking(self.cut(query), depth) for query in queries]

    def _ranking(self, query: list[str], depth: int) -> list[int]:
        import numpy as np

        known = [word for word in query if word in self.index.vocab_dict]
        if not known:
            return []
        scores = self.index.get_scores(known)
        best = np.argsort(-scores, kind="stable")[:depth]
        return [int(number) for number in best if scores[number] > 0]


def cutter(language: str) -> Callable[[str], list[str]]:
    """Text -> the words by which it is found."""
    engine = pack(language).count.words if language else "space"
    if language == "ko":
        engine = "kiwi"
    if engine == "none":
        return _pairs
    return partial(_words, language=language, engine=engine)


def _words(text: str, language: str, engine: str) -> list[str]:
    found = []
    for word in text.split() if engine == "space" else words(text, language, engine):
        found += PIECE.findall(_plain(word))
    return found


def _pairs(text: str) -> list[str]:
    found = []
    for run in PIECE.findall(_plain(text)):
        signs = graphemes(run)
        if run.isascii() or len(signs) == 1:
            found.append(run)
        else:
            found += [first + second for first, second in pairwise(signs)]
    return found


def _plain(text: str) -> str:
    return western(compose(text).casefold())
