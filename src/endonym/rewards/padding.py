"""Whether a reply is padding: the same few words over and over, or nothing but the words asked for.

    repetition = distinct 3-grams of words / all 3-grams          prose: 0.9 to 1; a refrain: about 0.5

A counted length or keyword ("at least 300 words", "use it ten times") is obeyed by repeating one word,
and a reward that pays for that teaches it. So a reply is padding where

    it has 6 words or more and `repetition` is below LEAST, or
    its checks ask for words and, without these, hardly anything is left: no word at all.

Languages without a segmenter here are looked at by graphemes.
"""

from endonym.lang.pack import pack
from endonym.lang.segment import graphemes, words
from endonym.rewards.wording import fold

LEAST = 0.3
SHORTEST = 6  # words; below it nothing can be told from repetition
ASKED = ("words", "word", "keywords", "keyword", "text")  # arguments that name words to be used
DEMANDS = ("contains", "keyword_frequency", "keywords:existence", "keywords:frequency")


def repetition(units: list[str]) -> float:
    """Distinct 3-grams over all 3-grams; 1.0 for fewer than three units."""
    grams = list(zip(units, units[1:], units[2:]))
    return len(set(grams)) / len(grams) if grams else 1.0


def is_padding(text: str, checks: list[dict]) -> bool:
    """Whether a reply is padding for these checks; the language is theirs, or spaces part the words."""
    language = next((check["language"] for check in checks if check.get("language")), "")
    units = _units(fold(text), language)
    if len(units) >= SHORTEST and repetition(units) < LEAST:
        return True
    asked = [word for check in checks if check["type"] in DEMANDS for word in _asked(check)]
    rest = fold(text)
    for word in sorted((fold(word) for word in asked), key=len, reverse=True):
        rest = rest.replace(word, " ")
    return bool(asked) and not any(character.isalnum() for character in rest)


def _asked(check: dict) -> list[str]:
    values = [check[name] for name in ASKED if check.get(name)]
    return [word for value in values for word in ([value] if isinstance(value, str) else value)]


def _units(text: str, language: str) -> list[str]:
    if language and pack(language).count.words == "none":
        return [each for each in graphemes(text) if not each.isspace()]
    return words(text, language) if language else text.split()
