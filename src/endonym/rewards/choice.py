"""Which of several options a reply chooses.

A reply is read by the first rule that gives one option:

    1. a marker of a language ("คำตอบคือ", "정답은", "answer is") followed by a label; the last such
    2. the whole reply is the text of one option
    3. the whole reply is a label: 2, (2), b, (B), ข, 나, ②
    4. labels in brackets, all of one option
    5. exactly one option's text stands in the reply, word for word

A label is a number in any script's digits, a Latin letter, a Thai consonant used for numbering
(ก ข ค ง จ), a Korean one (가 나 다 라 마, ㄱ ㄴ ㄷ ㄹ ㅁ) or a circled number. Where the options are
numbers themselves, a bare "2" that is one option's text and another's label is ambiguous.

A reply may correct itself: the last marker counts. It may not hedge: markers that name three options
or more, or a marker's label that is followed by "or" another label, are ambiguous. An ambiguous or
unread reply scores 0 and says so.
"""

import re

from endonym.core.errors import DataError
from endonym.lang.normalize import clean, latin_digits
from endonym.lang.pack import pack, packs
from endonym.rewards.answer import clear
from endonym.rewards.base import Completion, column, reply_text, said

LETTERS = "abcdefghij"
THAI = "กขคงจ"
HANGUL = "가나다라마"
JAMO = "ㄱㄴㄷㄹㅁ"
CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩"
ROWS = (LETTERS, THAI, HANGUL, JAMO, CIRCLED)
# A Hangul label is no beginning of a word; 이다 ("is") may follow it.
_HANGUL = r"(?![가-힣ㄱ-ㅎ])|[가나다라마](?=입니다|이다|예요|이에요|번)"
LABEL = rf"(10|[1-9]|[{LETTERS}]|[{THAI}](?![\u0e00-\u0e7f])|[{HANGUL}{JAMO}]{_HANGUL}|[{CIRCLED}])"
END = r"(?![a-z0-9])"
BRACKETED = re.compile(rf"[(\[]\s*{LABEL}\s*[)\]]|([{CIRCLED}])")
HEDGE = re.compile(
    rf"\s*[)\]]?\s*(?:,|/|หรือ|และ|또는|혹은|or\b|and\b)\s*(?:ข้อ)?\s*[(\[]?\s*{LABEL}{END}"
)


def choice(
    prompts, completions: list[Completion], choices=None, answer=None, **columns
) -> list[float | None]:
    """1.0 where the completion chooses the option whose index is `answer` out of `choices`, else 0.0.

    None where the row has no choices.
    """
    options = column("choices", choices, completions)
    golds = column("answer", answer, completions)
    return [
        None
        if not given
        else float(read_choice(reply_text(c), list(given))[0] == _gold(gold, given))
        for c, given, gold in zip(completions, options, golds)
    ]


def _gold(answer: str | int | None, options: list[str]) -> int:
    text = str(answer)
    if not text.isdecimal() or int(text) >= len(options):
        raise DataError(
            "the gold answer is not the index of an option",
            where="the column answer",
            wanted=f"0..{len(options) - 1}",
            got=repr(answer),
        )
    return int(text)


def read_choice(reply: str, options: list[str]) -> tuple[int | None, str]:
    """The index of the option that a reply picks, or None, and the reason.

    Reasons: "marker", "text", "label", "bracket", "contained"; for None: "empty reply",
    "ambiguous", "no option found".
    """
    text = latin_digits(clean(said(reply))).casefold()
    if not text:
        return None, "empty reply"
    marked = [(m, _index(m.group(1), options)) for m in _markers().finditer(text)]
    if marked and marked[-1][1] is not None:
        found, index = marked[-1]
        hedge = HEDGE.match(text, found.end())
        named = {each for _, each in marked if each is not None}
        if len(named) > 2 or (hedge and _index(hedge[1], options) not in (index, None)):
            return None, "ambiguous"
        return index, "marker"
    bare = clear(text)
    cleared = [clear(option) for option in options]
    label = re.fullmatch(LABEL, bare)
    by_label = _index(label.group(1), options) if label else None
    if cleared.count(bare) == 1:
        by_text = cleared.index(bare)
        is_bracketed = text.startswith("(")
        if by_label is None or by_label == by_text:
            return by_text, "text"
        return (by_label, "label") if is_bracketed else (None, "ambiguous")
    if by_label is not None:
        return by_label, "label"
    bracketed = {_index(m.group(1) or m.group(2), options) for m in BRACKETED.finditer(text)}
    bracketed.discard(None)
    if len(bracketed) == 1:
        return bracketed.pop(), "bracket"
    contained = [n for n, option in enumerate(cleared) if option and option in bare]
    # "หนึ่งร้อยเอ็ด" contains "หนึ่งร้อย": of options inside one another the longest is meant.
    longest = [
        n for n in contained if not any(m != n and cleared[n] in cleared[m] for m in contained)
    ]
    if len(longest) == 1 and not bracketed:
        return longest[0], "contained"
    return None, "ambiguous" if bracketed or contained else "no option found"


def _markers() -> re.Pattern:
    global _MARKERS
    if _MARKERS is None:
        words = sorted({m for code in packs() for m in pack(code).choice.markers}, key=len)
        known = "|".join(re.escape(word.casefold()) for word in reversed(words))
        _MARKERS = re.compile(rf"(?:{known})\s*:?\s*(?:ข้อ|ตัวเลือก)?\s*[(\[]?\s*{LABEL}{END}")
    return _MARKERS


_MARKERS: re.Pattern | None = None


def _index(label: str, options: list[str]) -> int | None:
    """The option that a label names; None where there are fewer options."""
    if label.isdecimal() and label.isascii():
        index = int(label) - 1
    else:
        index = next(row.index(label) for row in ROWS if label in row)
    return index if 0 <= index < len(options) else None
