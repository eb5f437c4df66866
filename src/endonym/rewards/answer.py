"""Whether a short answer is the gold answer: by spelling after careful clearing, or as a number.

    reply -> what it says after its thoughts -> content of the last \\boxed{} if there is one
          -> clear(): NFC, one space, lead-ins ("คำตอบคือ"), polite endings ("ครับ"), quotation marks
             and closing punctuation removed, digits of every script as 0-9, case folded,
             spaces kept between Latin letters or digits only (Thai and Korean space freely)

Two cleared texts are equal, or both are numbers and equal as fractions: 1,250 = 1250 = ๑๒๕๐ =
1250.0; \\frac{1}{2} = 0.5 = 1/2. No computer algebra: \\sqrt{2} equals only \\sqrt{2} (rewards/math.py
knows more). A reply may box a step and then its answer; boxes in a row, or more than three different
ones, are a list and no answer.
"""

import re
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from endonym.lang.normalize import clean, latin_digits
from endonym.lang.pack import pack
from endonym.rewards.base import Completion, column, reply_text, said

LONGEST = 2000  # characters of an answer that are looked at; a longer one is no short answer

OPENING = "\"'“”‘’«»「」『』*_`(["
CLOSING = OPENING + ")].,;:!?。、！？ฯ…"
NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?")
FRACTION = re.compile(r"([-+]?)\\[dt]?frac\s*(?:\{([^{}]+)\}|(\d))\s*(?:\{([^{}]+)\}|(\d))")
MONEY = re.compile(r"^(?:\\?\$|฿|₩|€|£)\s*|\s*(?:บาท|원|baht|won|dollars?|%|\\%)$")
LAST = 20  # boxes that are looked at
MOST_BOXES = 3  # different ones; a step or two may be boxed before the answer
BRACES = re.compile(r"\\boxed *\{|[{}]")
BETWEEN = re.compile(r"(?:[\s,;/$&|]|\\[()\[\]]|\bor\b|\band\b|หรือ|และ|또는|혹은)*")
LOOSE_SPACE = re.compile(r"(?<![a-z0-9À-ɏḀ-ỿ]) | (?![a-z0-9À-ɏḀ-ỿ])")


def last_boxed(text: str) -> str | None:
    """The content of the last \\boxed{...} with balanced braces; None where there is none."""
    found = boxes(text)
    return found[-1][0] if found else None


def boxes(text: str) -> list[tuple[str, int, int]]:
    """(content, begin, end) of the last \\boxed{...} with balanced braces, in the order they begin; at
    most LAST of them, and of each so much that a content too long shows as such."""
    spans: list[tuple[int, int, int, int]] = []
    opened: list[re.Match] = []
    for token in BRACES.finditer(text):
        if token[0] != "}":
            opened.append(token)
        elif opened and (opening := opened.pop())[0] != "{":
            spans.append((opening.start(), token.end(), opening.end(), token.start()))
    return [
        (text[first : min(last, first + LONGEST + 1)].strip(), begin, end)
        for begin, end, first, last in sorted(spans)[-LAST:]
    ]


def box(text: str) -> tuple[str | None, bool]:
    """(the content of the last \\boxed{}, whether the boxes are a list rather than an answer)."""
    found = boxes(text)
    if not found:
        return None, False
    different = {content for content, *_ in found}
    in_a_row = any(
        before[0] != after[0] and BETWEEN.fullmatch(text, before[2], after[1])
        for before, after in pairwise(found)
    )
    return found[-1][0], in_a_row or len(different) > MOST_BOXES


def clear(text: str, language: str = "") -> str:
    """A short answer without what does not belong to it; see the head of this file."""
    text = latin_digits(clean(text[:LONGEST])).casefold()
    lead_ins, endings = affixes(language)
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
def affixes(language: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
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

    Reasons: "equal", "equal as numbers", "different", "several boxes", "empty reply".
    """
    reply = said(reply)
    boxed, is_list = box(reply)
    if is_list:
        return False, "several boxes", ""
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
    prompts,
    completions: list[Completion],
    answer=None,
    language=None,
    choices=None,
    checks=None,
    **columns,
) -> list[float | None]:
    """1.0 where the completion is the gold `answer`, else 0.0; None where the row has no gold.

    None too where it has `choices`, of which `answer` is an index (the reward `choice` reads it), or
    `checks`, for which it is one reply of many (the reward `constraints`).
    """
    golds = column("answer", answer, completions)
    languages = column("language", language, completions)
    others = zip(column("choices", choices, completions), column("checks", checks, completions))
    return [
        None
        if not gold or any(other)
        else float(match(reply_text(completion), gold, code or "")[0])
        for completion, gold, code, other in zip(completions, golds, languages, others)
    ]


def boxed(prompts, completions: list[Completion], **columns) -> list[float | None]:
    """1.0 where the reply holds exactly one \\boxed{} and it is not empty, else 0.0."""
    texts = [reply_text(completion) for completion in completions]
    return [float(text.count("\\boxed") == 1 and bool(last_boxed(text))) for text in texts]
