"""Rules that a reply must obey and a program can check: a first set of IFEval's types.

A check is a table {"type": name, **arguments}. Counts take `count` and `relation` ("exactly", "at
least", "at most"). Both sides are NFC and case-folded before comparing, never NFKC. Words and
sentences are counted as lang/segment.py counts them. An empty reply obeys nothing.

Where our rule departs from the English original: a keyword is found as a substring (a word boundary
fails after Thai combining marks, and Korean particles stick to words), a forbidden word only where
it is a word of the text ("แมว" is not in "แมวน้ำ" for newmm), and every keyword is taken literally,
never as a regular expression.
"""

from collections.abc import Callable
from inspect import signature

from endonym.core.config import nearest
from endonym.core.errors import DataError
from endonym.lang.normalize import compose
from endonym.lang.pack import pack
from endonym.lang.script import after_thinking, in_language
from endonym.lang.segment import lines, sentences, words
from endonym.rewards.language import CLOSERS, is_polite
from endonym.tasks.base import Item, Verdict

QUOTES = {'"': '"', "“": "”", "‘": "’", "「": "」", "『": "』", "«": "»"}
COMMAS = ",，、،"
RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "exactly": lambda found, count: found == count,
    "at least": lambda found, count: found >= count,
    "at most": lambda found, count: found <= count,
}


def _fold(text: str) -> str:
    return compose(text).casefold()


def _holds(found: int, count: int, relation: str) -> bool:
    if relation not in RELATIONS:
        raise DataError(
            f"unknown relation {relation!r} in a check", do=nearest(relation, list(RELATIONS))
        )
    return RELATIONS[relation](found, count)


def starts_with(reply: str, text: str) -> bool:
    return _fold(reply).strip().startswith(_fold(text).strip())


def ends_with(reply: str, text: str) -> bool:
    """The reply's last words; closing marks that the wanted ending does not have are passed over."""
    found, wanted = _fold(reply).strip(), _fold(text).strip()
    return found.endswith(wanted) or found.rstrip(CLOSERS).endswith(wanted)


def contains(reply: str, words: list[str]) -> bool:
    return all(_fold(word) in _fold(reply) for word in words)


def excludes(reply: str, words: list[str], language: str) -> bool:
    return not any(_has_word(_fold(reply), _fold(word), language) for word in words)


def _has_word(text: str, word: str, language: str) -> bool:
    """Whether `word` stands in the text as a word of its own, as the language cuts words."""
    if word not in text or pack(language).count.words == "none":
        return word in text
    marks = ".,!?;:\"'“”‘’()[]"
    pieces = [piece.strip(marks) for piece in words(text, language)]
    if "Hang" in pack(language).scripts:  # particles are glued on: 학교 is in 학교에서
        return any(piece.startswith(word) for piece in pieces)
    wanted = [piece.strip(marks) for piece in words(word, language)]
    spans = range(len(pieces) - len(wanted) + 1)
    return any(pieces[at : at + len(wanted)] == wanted for at in spans)


def keyword_frequency(reply: str, word: str, count: int, relation: str = "at least") -> bool:
    return _holds(_fold(reply).count(_fold(word)), count, relation)


def count_lines(reply: str, count: int, relation: str = "exactly") -> bool:
    return _holds(len(lines(reply)), count, relation)


def count_sentences(reply: str, count: int, relation: str = "exactly") -> bool:
    return _holds(len(sentences(reply)), count, relation)


def count_words(reply: str, count: int, language: str, relation: str = "at least") -> bool:
    return _holds(len(words(reply, language)), count, relation)


def count_paragraphs(reply: str, count: int, relation: str = "exactly") -> bool:
    """Paragraphs are parted by an empty line."""
    blocks = [block for block in reply.replace("\r\n", "\n").split("\n\n") if block.strip()]
    return _holds(len(blocks), count, relation)


def count_bullets(reply: str, count: int, relation: str = "exactly") -> bool:
    """Lines that begin with "-", "*" or "•" and hold something after it."""
    found = [line for line in lines(reply) if line[0] in "-*•" and line.lstrip("-*• ")]
    return _holds(len(found), count, relation)


def quoted(reply: str) -> bool:
    text = reply.strip()
    return len(text) > 2 and QUOTES.get(text[0]) == text[-1]


def no_comma(reply: str) -> bool:
    return not any(comma in reply for comma in COMMAS)


def polite(reply: str, language: str) -> bool:
    if not pack(language).polite:
        raise DataError(
            f"the pack of {language!r} lists no polite ending", do="leave the check out"
        )
    return is_polite(reply, language)


CHECKERS: dict[str, Callable[..., bool]] = {
    "language": lambda reply, language: in_language(reply, language),
    "starts_with": starts_with,
    "ends_with": ends_with,
    "contains": contains,
    "excludes": excludes,
    "keyword_frequency": keyword_frequency,
    "lines": count_lines,
    "sentences": count_sentences,
    "words": count_words,
    "paragraphs": count_paragraphs,
    "bullets": count_bullets,
    "quoted": quoted,
    "no_comma": no_comma,
    "polite": polite,
}


SIGNATURES = {name: signature(checker) for name, checker in CHECKERS.items()}


def obeys(reply: str, check: dict) -> bool:
    """Whether a reply obeys one check. An unknown type or argument is a DataError."""
    arguments = {key: value for key, value in check.items() if key != "type"}
    name = check.get("type")
    if name not in CHECKERS:
        raise DataError(
            f"unknown check type {name!r}", got=check, do=nearest(str(name), list(CHECKERS))
        )
    text = after_thinking(reply)
    if not text.strip():
        return False
    try:
        SIGNATURES[name].bind(text, **arguments)
    except TypeError as error:
        raise DataError(
            f"a check of type {name!r} has wrong arguments", wanted=str(error), got=check
        ) from None
    return CHECKERS[name](text, **arguments)


class ConstraintTask:
    """target: the reference reply. check: 1 if every rule is obeyed (IFEval's strict prompt level);
    the reason names the rules that are not."""

    def target(self, item: Item) -> str:
        return item.answer

    def check(self, item: Item, reply: str) -> Verdict:
        broken = [check["type"] for check in item.checks if not obeys(reply, check)]
        if not item.checks:
            raise DataError("a constraint without checks", where=f"item {item.id}")
        return Verdict(float(not broken), f"broken: {', '.join(broken)}" if broken else "obeyed")


TASK = ConstraintTask()
