"""The rule that stands in for a judge: how far a reply's content words are those of the reference.

    F1 = 2 |A n B| / (|A| + |B|)         A, B: content words of reply and reference, as multisets

Content words are words (lang/segment.py, graphemes where a language has no words here) that are no stop
words of the pack and do not stand in the question: repeating the question earns nothing. A reference
that says nothing beyond the question keeps its words.

Numbers decide: each number of the reference that the question does not name must stand in the reply,
and the reply may name at most as many others; else 0.
"""

import re
from collections import Counter

from endonym.lang.normalize import latin_digits
from endonym.lang.pack import pack, stop_words
from endonym.lang.segment import graphemes
from endonym.rewards.wording import MARKS, bare_words, fold

RULE = (
    "F1 of content words with the reference, words of the question left out; 0 unless the reference's "
    "numbers stand in the reply among at most as many others"
)
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
LONGEST = 20_000


def overlap(reply: str, reference: str, question: str, language: str) -> float:
    """The rule above, 0 to 1."""
    reply, reference, question = (
        latin_digits(fold(text[:LONGEST])) for text in (reply, reference, question)
    )
    known = set(NUMBER.findall(question))
    wanted, named = (_numbers(text) - known for text in (reference, reply))
    if not wanted <= named or len(named - wanted) > len(wanted):
        return 0.0
    asked = set(_content(question, language))
    gold = _content(reference, language)
    gold = [word for word in gold if word not in asked] or gold
    left_out = asked - set(gold)
    found = [word for word in _content(reply, language) if word not in left_out]
    common = (Counter(gold) & Counter(found)).total()
    return 2 * common / (len(gold) + len(found)) if gold and found else 0.0


def _numbers(text: str) -> set[str]:
    return {each.replace(",", "") for each in NUMBER.findall(text)}


def _content(text: str, language: str) -> list[str]:
    if not language:
        return [word for piece in text.split() if (word := piece.strip(MARKS))]
    if pack(language).count.words == "none":
        return [each for each in graphemes(text) if each.isalnum()]
    ignored = stop_words(language)
    words = bare_words(text, language)
    return [word for word in words if word not in ignored] or words
