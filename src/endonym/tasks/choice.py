"""One of several options: by likelihood of the continuations, or by reading a reply.

Options are shown as "(1) ...", "(2) ..." in every language, because that is how Thai and Korean
exams print them and because no letter of any script is favoured.

A reply is read by the first rule that gives one option:

    1. a marker of a language ("คำตอบคือ", "정답은", "answer is") followed by a label; the last such
    2. the whole reply is the text of one option
    3. the whole reply is a label: 2, (2), b, (B), ข, ②
    4. labels in brackets, all of one option
    5. exactly one option's text stands in the reply, word for word

A label is a number, a Latin letter or a Thai consonant used for numbering (ก ข ค ง จ). Where the
options are numbers themselves, a bare "2" that is one option's text and another's label is
ambiguous, and an ambiguous or unread reply scores 0 and says so.
"""

import re

from endonym.core.errors import DataError
from endonym.lang.normalize import clean, latin_digits
from endonym.lang.pack import pack, packs
from endonym.lang.script import after_thinking
from endonym.rewards.answer import clear
from endonym.tasks.base import Item, Verdict

LETTERS = "abcdefghij"
THAI = "กขคงจ"
CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩"
LABEL = rf"(10|[1-9]|[{LETTERS}]|[{THAI}](?![\u0e00-\u0e7f])|[{CIRCLED}])"
END = r"(?![a-z0-9])"
BRACKETED = re.compile(rf"[(\[]\s*{LABEL}\s*[)\]]|([{CIRCLED}])")


class ChoiceTask:
    """target: the language's sentence with the right number. check: 1 for the right option."""

    def target(self, item: Item) -> str:
        words = pack(item.language or "en").choice
        return words.reply.format(number=_gold(item) + 1)

    def check(self, item: Item, reply: str) -> Verdict:
        picked, reason = read_choice(reply, item.choices)
        if picked is None:
            return Verdict(0.0, reason)
        is_right = picked == _gold(item)
        return Verdict(float(is_right), "right" if is_right else "wrong option", str(picked))


TASK = ChoiceTask()


def show(options: list[str]) -> str:
    """The options as lines "(1) ...", "(2) ..."."""
    return "\n".join(f"({number}) {text}" for number, text in enumerate(options, start=1))


def continuations(item: Item) -> tuple[str, list[str]]:
    """The context and its continuations, for scoring by likelihood.

    Spaces at the context's end move to the front of every continuation, as in lm-eval: a word's
    first piece usually carries its space. The two are to be encoded apart, never joined and cut: a
    Thai context can swallow the first piece of what follows. A continuation that is empty would
    score best of all and is refused.
    """
    context = item.context.rstrip(" ")
    space = item.context[len(context) :]
    if not all(choice.strip() for choice in item.choices):
        raise DataError("an empty option", where=f"item {item.id}", got=item.choices)
    return context, [space + choice for choice in item.choices]


def read_choice(reply: str, options: list[str]) -> tuple[int | None, str]:
    """The index of the option that a reply picks, or None, and the reason.

    Reasons: "marker", "text", "label", "bracket", "contained"; for None: "empty reply",
    "ambiguous", "no option found".
    """
    text = latin_digits(clean(after_thinking(reply))).casefold()
    if not text:
        return None, "empty reply"
    after_marker = [m for m in _markers().finditer(text)]
    if after_marker:
        index = _index(after_marker[-1].group(1), options)
        if index is not None:
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
        index = next(row.index(label) for row in (LETTERS, THAI, CIRCLED) if label in row)
    return index if 0 <= index < len(options) else None


def _gold(item: Item) -> int:
    if not item.answer.isdecimal() or int(item.answer) >= len(item.choices):
        raise DataError(
            "the gold answer is not the index of an option",
            where=f"item {item.id}",
            wanted=f"0..{len(item.choices) - 1}",
            got=repr(item.answer),
        )
    return int(item.answer)
