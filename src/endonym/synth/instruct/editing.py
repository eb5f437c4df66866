"""Step 7 without a model: a known reply is made to obey by rule, or the pair is dropped.

    edit(draft) -> the reply that obeys, or None where it cannot be done

Two sorts of rules. Some choose the constraint's arguments by what the reply is (at least 40 words, where
it has 47; a word that stands in it) and leave the reply alone. Others change its form and never its
words: wrap it, cut it into lines, list or sections, add a sentence of the pack. What a rule made is
verified like any other reply (verification.py), so a rule may be wrong and only costs the pair.

A reply that holds code, LaTeX or a table is left alone: its line breaks, stars and commas mean something.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

from endonym.lang.pack import pack, stop_words
from endonym.lang.segment import graphemes, lines, sentences, words
from endonym.synth.instruct.pool import Kind

FORMAL = re.compile(r"```|\\boxed|\\frac|\\\(|\\\[|\$[^$]+\$|^\s*\|.*\|\s*$|<[a-zA-Z/][^>]*>", re.M)
MARKER = re.compile(r"^\s*(?:[-*•]|\(?\d+[.)]|\(?[๐-๙]+[.)])\s*")
CLOSERS = " \t\n.!?。…~"
LONGEST_TITLE = 60


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
        """The lines of the reply, or its sentences where it has one line; list markers left out."""
        found = lines(self.reply)
        found = found if len(found) > 1 else sentences(self.reply, self.language)
        return [each for part in found if (each := MARKER.sub("", part).strip())]

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
    """Whether rules may touch a reply."""
    return bool(reply.strip()) and not FORMAL.search(reply)


def edit(draft: Draft) -> str | None:
    return EDITS[draft.kind.edit](draft)


def _content_words(text: str, language: str) -> list[str]:
    """Words of two letters or more that are no function words; Korean ones without their particle."""
    is_hangul = "Hang" in pack(language).scripts
    found = words(text, language, "kiwi" if is_hangul else "")
    ends = sorted((p.lstrip("-") for p in pack(language).particles), key=len, reverse=True)
    pieces = [word.strip("\"'“”‘’.,!?;:()[]*") for word in words(text, language)]
    listed, kept = stop_words(language), []
    for word in found:
        word = word.strip("\"'“”‘’.,!?;:()[]*")
        if is_hangul and not any(p == word or p in {word + e for e in ends} for p in pieces):
            continue  # a stem or an ending, no word
        long_enough = len(graphemes(word)) >= (2 if is_hangul else 3)
        if long_enough and word.isprintable() and word.casefold() not in listed and _is_word(word):
            kept.append(word)
    return kept


def _is_word(word: str) -> bool:
    """Letters and combining marks only."""
    return all(c.isalpha() or unicodedata.category(c)[0] == "M" for c in word)


# --- the argument follows the reply ------------------------------------------------------------


def _measure(draft: Draft) -> int:
    unit = draft.kind.type.rpartition(":")[2].removeprefix("number_")
    reply, language = draft.reply, draft.language
    counted: dict[str, Callable[[], int]] = {
        "words": lambda: len(words(reply, language)),
        "sentences": lambda: len(sentences(reply, language)),
        "lines": lambda: len(lines(reply)),
        "characters": lambda: sum(not each.isspace() for each in graphemes(reply)),
    }
    return counted[unit]()


def _near(draft: Draft, name: str, found: int, relation: str) -> bool:
    """Sets a number to a round one that the reply obeys and that is not far from what it has."""
    allowed = {
        "at least": range((found + 1) // 2, found + 1),
        "less than": range(found + 1, 2 * found + 1),
        "at most": range(found, 2 * found + 1),
        "exactly": range(found, found + 1),
    }[relation]
    near = [number for number in draft.grid(name) if number in allowed]
    if near:
        draft.drawn[name] = draft.random.choice(near)
    return bool(near)


def _fit(draft: Draft) -> str | None:
    (name,) = draft.kind.range
    return draft.reply if _near(draft, name, _measure(draft), draft.drawn["relation"]) else None


def _keep(draft: Draft) -> str:
    return draft.reply


def _contained(draft: Draft) -> str | None:
    known, count = draft.keywords(), draft.kind.several["keywords"]
    if len(known) < count:
        return None
    draft.drawn["keywords"] = draft.random.sample(known, count)
    return draft.reply


def _frequent(draft: Draft) -> str | None:
    """A word that comes twice or more; "less than" takes any."""
    relation, text = draft.drawn["relation"], draft.reply.casefold()
    counts = {word: text.count(word.casefold()) for word in draft.keywords()}
    fits = [word for word, found in counts.items() if found > 1 or relation == "less than"]
    if not fits:
        return None
    draft.drawn["keyword"] = word = draft.random.choice(fits)
    return draft.reply if _near(draft, "frequency", counts[word], relation) else None


def _absent(draft: Draft) -> str | None:
    """Words of the pack that the reply does not hold anywhere, not even inside others."""
    text = draft.reply.casefold()
    fits = [each for each in draft.kind.choice["forbidden_words"] if each.casefold() not in text]
    count = draft.kind.several["forbidden_words"]
    if len(fits) < count:
        return None
    draft.drawn["forbidden_words"] = draft.random.sample(fits, count)
    return draft.reply


def _letter(draft: Draft) -> str | None:
    letter, text = draft.drawn["letter"], draft.reply.casefold()
    found = text.count(letter.casefold())
    return draft.reply if found and _near(draft, "let_frequency", found, draft.drawn["let_relation"]) \
        else None  # fmt: skip


def _capital_words(draft: Draft) -> str | None:
    found = sum(word.isupper() and len(word) > 1 for word in words(draft.reply, draft.language))
    relation = draft.drawn["capital_relation"]
    return draft.reply if found and _near(draft, "capital_frequency", found, relation) else None


# --- the form follows the constraint ----------------------------------------------------------------


def _choose_count(draft: Draft, name: str) -> bool:
    """Sets a number to how many parts the reply has."""
    found = len(draft.parts())
    if found in draft.grid(name):
        draft.drawn[name] = found
    return found in draft.grid(name)


def _listed(draft: Draft, marker: Callable[[int], str]) -> str | None:
    (name,) = draft.kind.range
    if not _choose_count(draft, name):
        return None
    return "\n".join(f"{marker(n)} {part}" for n, part in enumerate(draft.parts(), 1))


def _bullets(draft: Draft) -> str | None:
    sign = draft.random.choice("-*")
    return _listed(draft, lambda number: sign)


def _numbered(draft: Draft) -> str | None:
    return _listed(draft, lambda number: f"{number}.")


def _lines(draft: Draft) -> str | None:
    (name,) = draft.kind.range
    return "\n".join(draft.parts()) if _choose_count(draft, name) else None


def _grouped(draft: Draft, name: str) -> list[str] | None:
    """Groups as many as a number of the grid says that the parts allow."""
    fits = [number for number in draft.grid(name) if number <= len(draft.parts())]
    if not fits:
        return None
    draft.drawn[name] = draft.random.choice(fits)
    return draft.groups(draft.drawn[name])


def _stars(draft: Draft) -> str | None:
    groups = _grouped(draft, "num_paragraphs")
    return "\n***\n".join(groups) if groups else None


def _paragraphs(draft: Draft) -> str | None:
    groups = _grouped(draft, "count")
    return "\n\n".join(groups) if groups else None


def _first_word(draft: Draft) -> str | None:
    groups = _grouped(draft, "num_paragraphs")
    if not groups:
        return None
    nth = draft.random.randrange(len(groups))
    found = words(groups[nth], draft.language)
    if not found or not groups[nth].startswith(found[0]) or not _is_word(found[0]):
        return None
    draft.drawn |= {"nth_paragraph": nth + 1, "first_word": found[0]}
    return "\n\n".join(groups)


def _sections(draft: Draft) -> str | None:
    groups = _grouped(draft, "num_sections")
    if not groups:
        return None
    head = draft.drawn["section_spliter"]
    return "\n\n".join(f"{head} {number}\n{part}" for number, part in enumerate(groups, 1))


def _append(draft: Draft) -> str:
    return f"{draft.reply.rstrip()}\n\n{draft.drawn['end_phrase']}"


def _prepend(draft: Draft) -> str:
    return f"{draft.drawn['text']}\n\n{draft.reply.lstrip()}"


def _suffix(draft: Draft) -> str | None:
    """A particle right after the last word; not beside the words of `texts` (speakers who say so)."""
    reply, ending = draft.reply.rstrip(CLOSERS), draft.drawn["text"]
    for polite in sorted(pack(draft.language).polite, key=len, reverse=True):
        reply = reply.removesuffix(polite).rstrip(CLOSERS)
    if not reply or not (reply[-1].isalpha() or not reply[-1].isascii()):
        return None
    others = [*draft.kind.texts, *(each for each in pack(draft.language).polite if each != ending)]
    return None if any(each in reply for each in others) else reply + ending


def _postscript(draft: Draft) -> str:
    said = draft.random.choice(draft.kind.texts)
    return f"{draft.reply.rstrip()}\n\n{draft.drawn['postscript_marker']} {said}"


def _placeholders(draft: Draft) -> str | None:
    if "[" in draft.reply:
        return None
    said = draft.random.choice(draft.kind.texts)
    found = len(re.findall(r"\[[^\]]+\]", said))
    draft.drawn["num_placeholders"] = found
    return f"{draft.reply.rstrip()}\n\n{said}"


def _title(draft: Draft) -> str | None:
    """The query as a heading, where it is one short line."""
    title = draft.query.strip().rstrip(CLOSERS)
    if "\n" in title or not 0 < len(title) <= LONGEST_TITLE or re.search(r"[<>:\"“]", title):
        return None
    return f"<<{title}>>\n\n{draft.reply.lstrip()}"


def _highlight(draft: Draft) -> str | None:
    """Stars around words that carry meaning, where they first stand."""
    known = [word for word in draft.keywords() if "*" not in draft.reply]
    fits = [number for number in draft.grid("num_highlights") if number <= len(known)]
    if not fits:
        return None
    draft.drawn["num_highlights"] = count = draft.random.choice(fits)
    chosen = draft.random.sample(known, count)
    chosen = [
        word for word in chosen if not any(word in other for other in chosen if other != word)
    ]
    if len(chosen) < count:
        return None
    reply = draft.reply
    for word in chosen:
        reply = reply.replace(word, f"*{word}*", 1)
    return reply


def _json(draft: Draft) -> str:
    """The query and the reply under two keys of the pack, "question|answer"."""
    question, answer = draft.random.choice(draft.kind.texts).split("|")
    said = {question: draft.query, answer: draft.reply}
    text = json.dumps(said, ensure_ascii=False, indent=2)
    return f"```json\n{text}\n```" if draft.random.random() < 0.5 else text


def _quote(draft: Draft) -> str | None:
    return None if '"' in draft.reply else f'"{draft.reply.strip()}"'


def _repeat(draft: Draft) -> str:
    return f"{draft.query}\n\n{draft.reply.lstrip()}"


def _without_commas(draft: Draft) -> str:
    return re.sub(r"(?<=\d),(?=\d)", "", draft.reply).replace(", ", " ").replace(",", " ")


def _native_digits(draft: Draft) -> str | None:
    """0-9 in the language's own digits, where the reply has any."""
    own = pack(draft.language).digits
    if not own or not re.search("[0-9]", draft.reply):
        return None
    return draft.reply.translate(dict(zip(map(ord, "0123456789"), own)))


EDITS: dict[str, Callable[[Draft], str | None]] = {
    "fit": _fit,
    "keep": _keep,
    "contained": _contained,
    "frequent": _frequent,
    "absent": _absent,
    "letter": _letter,
    "capital_words": _capital_words,
    "bullets": _bullets,
    "numbered": _numbered,
    "lines": _lines,
    "stars": _stars,
    "paragraphs": _paragraphs,
    "first_word": _first_word,
    "sections": _sections,
    "append": _append,
    "prepend": _prepend,
    "suffix": _suffix,
    "postscript": _postscript,
    "placeholders": _placeholders,
    "title": _title,
    "highlight": _highlight,
    "json": _json,
    "quote": _quote,
    "repeat": _repeat,
    "without_commas": _without_commas,
    "native_digits": _native_digits,
    "upper": lambda draft: draft.reply.upper(),
    "lower": lambda draft: draft.reply.lower(),
}
"""By the name a packed kind gives; "" there means that only a model can obey it."""
