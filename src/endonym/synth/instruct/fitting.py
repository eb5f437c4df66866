"""Rules that choose a constraint's arguments by what the reply is, and leave the reply alone."""

from collections.abc import Callable

from endonym.lang.segment import graphemes, lines, sentences, words
from endonym.synth.instruct.draft import Draft


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


FITS: dict[str, Callable[[Draft], str | None]] = {
    "fit": _fit,
    "keep": _keep,
    "contained": _contained,
    "frequent": _frequent,
    "absent": _absent,
    "letter": _letter,
    "capital_words": _capital_words,
}
