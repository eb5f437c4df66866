"""Which sections of which laws a text names: "มาตรา ๔๐ (๘) แห่งประมวลรัษฎากร", "민법 제12조의2".

    reward = gold sections named / gold sections

The gold sections are the checks of type "cites" of a row: {"type": "cites", "law_name": ...,
"section_num": ...}. A section is named where its number follows the word for it (lang/citations.py) and
belongs to its law: the one that follows at once ("section 40 of the Revenue Code"), else the last one
before it. Digits of any script, spaces and case do not matter; a number "" asks for the law alone. Only
the names of gold laws are known here: after one of them, a section of a law that nobody asked about
counts as that law's.

Who names every section has cited none: more than `spare` sections beyond the gold ones pay nothing.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable

from endonym.lang.citations import NUMBER, WORD, section_number, spelt, western
from endonym.rewards.answer import LOOSE_SPACE
from endonym.rewards.base import Completion, Reward, column, named, reply_text
from endonym.rewards.wording import fold

LONGEST = 50_000  # characters of a reply that are looked at
SPARE = 5
Reference = tuple[str, str]
"""(name of the law as _plain() writes it, number of the section as lang/citations.py spells it)."""

AND = r"(?:\s*(?:,|และ|หรือ|and|or|및)\s*)"
KOREAN = r"(?<!\d)(\d{1,5})\s?조(?:\s?의\s?(\d{1,5}))?"
MENTION = re.compile(rf"{WORD}\s*({NUMBER}(?:{AND}{NUMBER})*)|{KOREAN}")
# What may stand between a section and the law it belongs to: its part, "(8)", and a word of belonging.
BELONGS = re.compile(r"(?:\s?\(\w{1,4}\))*\s?,?\s?(?:แห่ง|ของ|ตาม|ใน|of the|of)?\s?")


def cites(*, spare: int = SPARE) -> Reward:
    """A reward out of the column `checks`. None where a row has no check of type "cites"."""

    def reward(prompts, completions: list[Completion], checks=None, **columns):
        values: list[float | None] = []
        for completion, given in zip(completions, column("checks", checks, completions)):
            gold = {gold_of(check) for check in given or [] if check["type"] == "cites"}
            values.append(share_cited(reply_text(completion), gold, spare) if gold else None)
        return values

    return named(reward, "cites")


def gold_of(check: dict) -> Reference:
    return _plain(check["law_name"]), section_number(check.get("section_num") or "")


def share_cited(text: str, gold: set[Reference], spare: int = SPARE) -> float:
    """Share of the gold references that a text names; 0.0 where it names too many others."""
    found = references(text, {book for book, _ in gold})
    if len({each for each in found if each[1]} - gold) > spare:
        return 0.0
    return len(gold & found) / len(gold)


def references(text: str, books: Iterable[str]) -> set[Reference]:
    """Every section that a text names, with its law or "" where none can be told; and every one of the
    laws that it names, with number ""."""
    text = _plain(text[:LONGEST])
    names = "|".join(map(re.escape, sorted(books, key=len, reverse=True)))
    known = re.compile(names or r"(?!)")
    spots = list(known.finditer(text))
    ends = [spot.end() for spot in spots]
    found = {(spot[0], "") for spot in spots}
    for mention in MENTION.finditer(text):
        after = known.match(text, BELONGS.match(text, mention.end()).end())
        before = bisect_right(ends, mention.start())
        book = after[0] if after else spots[before - 1][0] if before else ""
        numbers = re.findall(NUMBER, mention[1]) if mention[1] else [_korean(mention)]
        found |= {(book, spelt(number)) for number in numbers}
    return found


def _korean(mention: re.Match) -> str:
    return mention[2] + (f"의{mention[3]}" if mention[3] else "")


def _plain(text: str) -> str:
    """0-9, lower case, spaces only between Latin letters or digits."""
    return LOOSE_SPACE.sub("", " ".join(western(fold(text)).split()))
