"""A known reply on its way to obey a constraint (editing.py), and what of it a rule may take hold of."""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import Any

from endonym.lang.extras import need
from endonym.lang.pack import pack, stop_words
from endonym.lang.segment import graphemes, lines, sentences, words
from endonym.synth.instruct.pool import Kind

FORMAL = re.compile(r"```|\\boxed|\\frac|\\\(|\\\[|\$[^$]+\$|^\s*\|.*\|\s*$|<[a-zA-Z/][^>]*>", re.M)
MARKS = "\"'“”‘’.,!?;:()[]*"


@dataclass
class Draft:
    """A known reply on its way to obey a kind; a rule may set what of `drawn` it chooses itself."""

    query: str
    reply: str
    kind: Kind
    drawn: dict[str, Any]
    language: str
    random: Random

    def grid(self, name: str) -> range:
        low, high, step = self.kind.range[name]
        return range(low, high + 1, step)

    def parts(self) -> list[str]:
        """The lines of the reply. Of one line its sentences, where they end in a mark that shows where,
        and none is a mere word or two; else the line itself."""
        found = lines(self.reply)
        if len(found) > 1 or not pack(self.language).filters.line_ends:
            return found
        said = sentences(self.reply, self.language)
        return said if all(len(words(each, self.language)) > 2 for each in said) else found

    def groups(self, count: int) -> list[str] | None:
        """The parts in order in `count` groups, each as even as can be; None with too few parts."""
        parts = self.parts()
        if not 1 <= count <= len(parts):
            return None
        cuts = [round(number * len(parts) / count) for number in range(count + 1)]
        join = "\n" if len(lines(self.reply)) > 1 else pack(self.language).sentence_join
        return [join.join(parts[a:b]) for a, b in pairwise(cuts)]

    def keywords(self) -> list[str]:
        """Words of the reply that carry meaning, each once, in the reply's order. What also stands
        inside other words is left out: the segmenter may have cut it off ("วาม" of "ความ")."""
        found = _content_words(self.reply, self.language)
        if "Hang" in pack(self.language).scripts:
            return list(dict.fromkeys(found))
        text = self.reply.casefold()
        return [
            word
            for word in dict.fromkeys(found)
            if text.count(word.casefold()) == found.count(word)
        ]


def is_plain(reply: str) -> bool:
    """Whether rules may touch a reply: in code, LaTeX and tables line breaks, stars and commas mean
    something."""
    return bool(reply.strip()) and not FORMAL.search(reply)


def _content_words(text: str, language: str) -> list[str]:
    """Words of two letters or more that are no function words; Korean ones without their particle."""
    is_hangul = "Hang" in pack(language).scripts
    found = words(text, language, "kiwi" if is_hangul else "")
    whole = {word.strip(MARKS) for word in words(text, language)}
    ends = tuple(each.lstrip("-") for each in pack(language).particles)
    bare = whole | {word.removesuffix(end) for word in whole for end in ends}
    known = _dictionary() if pack(language).count.words == "newmm" else None
    listed, kept = stop_words(language), []
    for word in found:
        word = word.strip(MARKS)
        if is_hangul and word not in bare:
            continue  # a stem or an ending, no word
        if len(graphemes(word)) < (2 if is_hangul else 3) or word.casefold() in listed:
            continue
        if is_word(word) and (known is None or word in known):
            kept.append(word)
    return kept


@lru_cache(maxsize=1)
def _dictionary() -> frozenset[str]:
    """The words that newmm knows: what it cuts a name or a new word into are pieces ("อยด์")."""
    return need("pythainlp.corpus", "th", "Thai words").thai_words()


def is_word(word: str) -> bool:
    """Letters and combining marks only."""
    return all(c.isalpha() or unicodedata.category(c)[0] == "M" for c in word)
