"""In which language a text is written: by its script where that decides, else by py3langid.

    identify("ใช้ Python เขียนโปรแกรม")     Guess("th", 0.71, "script")
    identify("Xin chào các bạn")           Guess("vi", 1.00, "py3langid")

A script that one language of today is written in decides at once. Where several languages share it
(Latin, Cyrillic, Arabic, Devanagari, Bengali, Han), py3langid chooses among the languages of that
script alone, so that a Korean word in an English sentence cannot make it Slovene. Latin is taken
for the text's script only where no other has a tenth of its letters: Thai text names brands, and
every language quotes Latin more than English quotes Thai.

What this cannot do: tell minority languages from the main one of a script (Shan and Burmese,
Pattani Malay and Thai), romanised Thai or Korean from Latin languages, or very short strings in
Latin letters. The probability says so; docs/languages.md has the confusions. A text without letters
is "und" (ISO 639-2: undetermined) with probability 0.
"""

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from functools import lru_cache

from endonym.lang.script import counts

# The language that a script decides: the one nearly all text in it is written in.
DECIDES = {
    "Thai": "th",
    "Hang": "ko",
    "Laoo": "lo",
    "Khmr": "km",
    "Mymr": "my",
    "Kana": "ja",
    "Grek": "el",
    "Hebr": "he",
    "Armn": "hy",
    "Geor": "ka",
    "Guru": "pa",
    "Gujr": "gu",
    "Orya": "or",
    "Taml": "ta",
    "Telu": "te",
    "Knda": "kn",
    "Mlym": "ml",
    "Sinh": "si",
    "Thaa": "dv",
    "Tibt": "bo",
    "Ethi": "am",
    "Mong": "mn",
    "Java": "jv",
    "Sund": "su",
    "Bali": "ban",
}
# Written in other scripts than the likeliest of CLDR, or unknown to it.
ALSO = {
    "Latn": ["sr", "crh", "bcl", "gug", "kik"],
    "Cyrl": ["uz", "az", "ku"],
    "Deva": ["gom"],
    # Wu is written as Chinese by nearly all who write: py3langid takes short Chinese for it.
    "Hani": ["zh", "ja", "yue"],
}
LEAST = 0.1
"""Share of the letters from which a script other than Latin is the text's."""
KANA = 0.05
"""Share of kana among kana and Han from which the text is Japanese: Chinese quotes the odd の."""


@dataclass(frozen=True, slots=True)
class Guess:
    language: str
    """ISO 639 code; "und" for a text without letters or in a script that nothing here knows."""
    probability: float
    """how = "script": the script's share of the letters. how = "py3langid": its probability among
    the languages of the script, which its authors scale by the square root of the text's bytes."""
    how: str
    """ "script" | "py3langid"."""


def identify(text: str, among: frozenset[str] = frozenset()) -> Guess:
    """The language of a text.

    among: the languages that py3langid may choose from, where a caller knows which can occur; it
    knows some 80 of Latin letters, and short English is soon Nigerian Pidgin to it. What a script
    decides stays as it is. None of them in the text's script: "und".
    """
    script, share = _script(counts(text))
    if script in DECIDES:
        return Guess(DECIDES[script], share, "script")
    identifier = _identifier(script, among)
    if identifier is None:
        return Guess("und", 0.0, "script")
    language, probability = identifier.classify(text)
    return Guess(language, probability, "py3langid")


def identify_many(texts: Iterable[str], among: frozenset[str] = frozenset()) -> list[Guess]:
    """identify() of each text, in order."""
    return [identify(text, among) for text in texts]


def _script(found: dict[str, int]) -> tuple[str, float]:
    """The script that a text is written in, and its share of the letters. Kana stands for Japanese:
    hiragana, katakana and Han together."""
    total = sum(found.values())
    kana = found.get("Hira", 0) + found.get("Kana", 0)
    han = found.get("Hani", 0)
    merged = {code: n for code, n in found.items() if code not in ("Hira", "Kana", "Hani")}
    if kana + han:
        merged["Kana" if kana >= KANA * (kana + han) else "Hani"] = kana + han
    others = {code: n for code, n in merged.items() if code != "Latn" and n >= LEAST * total}
    script = max(others or merged, key=lambda code: merged[code], default="")
    return script, merged[script] / total if script else 0.0


@lru_cache(maxsize=1)
def _model():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@lru_cache(maxsize=64)
def _languages(script: str) -> tuple[str, ...]:
    """The languages of py3langid that are written in a script."""
    from babel.core import get_global

    if script == "Hani":
        return tuple(ALSO["Hani"])
    likely = get_global("likely_subtags")
    known = _model().labels
    first = [label for label in known if script and script in likely.get(label, "").split("_")]
    return tuple(dict.fromkeys(first + [label for label in ALSO.get(script, ()) if label in known]))


@lru_cache(maxsize=256)
def _identifier(script: str, among: frozenset[str]):
    """py3langid over the languages of one script, its tables shared, not read again; or None."""
    languages = [each for each in _languages(script) if not among or each in among]
    if not languages:
        return None
    identifier = copy(_model())
    identifier.set_languages(languages)
    return identifier
