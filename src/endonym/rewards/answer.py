"""Whether a short answer is the gold answer: by spelling after careful clearing, or as a number.

    reply -> text after "</think>" -> content of the last \\boxed{} if there is one
          -> clear(): NFC, one space, lead-ins ("คำตอบคือ"), polite endings ("ครับ"), quotation marks
             and closing punctuation removed, digits of every script as 0-9, case folded,
             spaces kept between Latin letters or digits only (Thai and Korean space freely)

Two cleared texts are equal, or both are numbers and equal as fractions: 1,250 = 1250 = ๑๒๕๐ =
1250.0; \\frac{1}{2} = 0.5 = 1/2. No computer algebra: \\sqrt{2} equals only \\sqrt{2}.
"""

import re
from fractions import Fraction
from functools import lru_cache

from endonym.lang.normalize import clean, latin_digits
from endonym.lang.pack import pack
from endonym.lang.script import after_thinking
from endonym.rewards.base import Completion, column, reply_text

LONGEST = 2000  # characters of an answer that are looked at; a longer one is no short answer

OPENING = "\"'“”‘’«»「」『』*_`(["
CLOSING = OPENING + ")].,;:!?。、！？ฯ…"
NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?")
FRACTION = re.compile(r"([-+]?)\\[dt]?frac\s*(?:\{([^{}]+)\}|(\d))\s*(?:\{([^{}]+)\}|(\d))")
MONEY = re.compile(r"^(?:\\?\$|฿|₩|€|£)\s*|\s*(?:บาท|원|baht|won|dollars?|%|\\%)$")
LOOSE_SPACE = re.compile(r"(?<![a-z0-9À-ɏḀ-ỿ]) | (?![a-z0-9À-ɏḀ-ỿ])")


def last_boxed(text: str) -> str | None:
    """The content of the last \\boxed{...} with balanced braces; None where there is none."""
    start = text.rfind("\\boxed")
    while start >= 0:
        at = start + len("\\boxed")
        while at < len(text) and text[at] == " ":
            at += 1
        depth = 0
        if at < len(text) and text[at] == "{":
            for end in range(at, len(text)):
                depth += (text[end] == "{") - (text[end] == "}")
                if depth == 0:
                    return text[at + 1 : end].strip()
        start = text.rfind("\\boxed", 0, start)
    return None


def clear(text: str, language: str = "") -> str:
    """A short answer without what does not belong to it; see the head of this file."""
    text = latin_digits(clean(text[:LONGEST])).casefold()
    lead_ins, endings = _affixes(language)
    before = None
    while before != text:
        before = text
        text = text.strip().lstrip(OPENING).rstrip(CLOSING).strip()
        for word in lead_ins:
            if text.startswith(word) and len(text) > len(word):
                text = text[len(word) :].lstrip(" :")
        for word in endings:
            if text.endswith(word) and len(text) > len(word):
                text = text[: -len(word)].rstrip()
    return LOOSE_SPACE.sub("", text)


@lru_cache(maxsize=64)
def _affixes(language: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Lead-ins and whole-word polite endings, longest first.

    Korean endings (니다, 요) are parts of verbs, so of those only the copula is cut off.
    """
    if not language:
        return (), ()
    known = pack(language)
    endings = ["입니다", "이에요", "예요"] if "Hang" in known.scripts else known.polite
    longest = lambda words: tuple(sorted((w.casefold() for w in words), key=len, reverse=True))  # noqa: E731
    return longest(known.lead_ins), longest(endings)


def number(text: str) -> Fraction | None:
    """The number that a text is, if it is nothing else; at most 200 digits."""
    text = latin_digits(clean(text[:LONGEST])).replace("\u2212", "-").strip("$ ").rstrip(".")
    text = text.removeprefix("\\(").removesuffix("\\)").strip()
    text = MONEY.sub("", text).strip()
    if not text or len(text) > 200:
        return None
    fraction = FRACTION.fullmatch(text)
    if fraction:
        sign, *parts = fraction.groups()
        top, bottom = (number(part) for part in (parts[0] or parts[1], parts[2] or parts[3]))
    elif text.count("/") == 1:
        sign, (top, bottom) = "", (number(part) for part in text.split("/"))
    elif NUMBER.fullmatch(text) and any(c.isdigit() for c in text):
        return Fraction(text.replace(",", ""))
    else:
        return None
    if top is None or bottom is None or bottom == 0:
        return None
    return -top / bottom if sign == "-" else top / bottom


def match(reply: str, gold: str, language: str = "") -> tuple[bool, str, str]:
    """Whether the reply is the gold answer, why, and what was read as the answer.

    Reasons: "equal", "equal as numbers", "different", "empty reply".
    """
    reply = after_thinking(reply)
    boxed = last_boxed(reply)
    answer = reply if boxed is None else boxed
    inner = last_boxed(gold)
    gold = gold if inner is None else inner
    cleared = clear(answer, language)
    if not cleared:
        return False, "empty reply", ""
    if cleared == clear(gold, language):
        return True, "equal", cleared
    value, wanted = number(cleared), number(clear(gold, language))
    if value is not None and value == wanted:
        return True, "equal as numbers", cleared
    return False, "different", cleared


def answer(
    prompts, completions: list[Completion], answer=None, language=None, **columns
) -> list[float | None]:
    """1.0 where the completion is the gold `answer`, else 0.0; None where the row has no gold."""
    golds = column("answer", answer, completions)
    languages = column("language", language, completions)
    return [
        None if not gold else float(match(reply_text(completion), gold, code or "")[0])
        for completion, gold, code in zip(completions, golds, languages)
    ]


def boxed(prompts, completions: list[Completion], **columns) -> list[float | None]:
    """1.0 where the reply holds exactly one \\boxed{} and it is not empty, else 0.0."""
    texts = [reply_text(completion) for completion in completions]
    return [float(text.count("\\boxed") == 1 and bool(last_boxed(text))) for text in texts]
