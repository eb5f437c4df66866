"""Rules that a reply must obey and a program can check: our own kinds, and all 25 of IFEval.

A check is a table {"type": name, **arguments}. Ours are in CHECKERS below; IFEval's go by its own
ids and arguments ("length_constraints:number_words", ...) and are in rewards/ifeval.py. A count takes
`count` and `relation` ("exactly", "at least", "at most", "less than"). How texts are compared is said
in rewards/wording.py. An empty reply obeys nothing, nor does one that was cut off while thinking.

Where our own kinds depart from the English original: a keyword is found as a substring (a word
boundary fails after Thai combining marks, and Korean particles stick to words), a forbidden word only
where it is a word of the text ("แมว" is not in "แมวน้ำ" for newmm), and every keyword is taken
literally, never as a regular expression.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import signature

from endonym.core.config import nearest
from endonym.core.errors import DataError
from endonym.lang.normalize import latin_digits
from endonym.lang.pack import pack
from endonym.lang.script import in_language
from endonym.lang.segment import graphemes, lines, sentences, words
from endonym.rewards.base import Completion, Reward, column, named, reply_text, said
from endonym.rewards.cites import gold_of, share_cited
from endonym.rewards.ifeval import IFEVAL, has_case, loose_forms
from endonym.rewards.language import CLOSERS, is_polite
from endonym.rewards.padding import is_padding
from endonym.rewards.parts import has_table, is_json_of, matches, parts
from endonym.rewards.wording import COMMAS, QUOTES, fold, has_word, holds, is_blank, visible

NUMBERED = re.compile(r"(\d{1,3})\s?[.)]\s*(.*)")


def starts_with(reply: str, text: str) -> bool:
    return fold(reply).strip().startswith(fold(text).strip())


def ends_with(reply: str, text: str) -> bool:
    """The reply's last words; closing marks that the wanted ending does not have are passed over."""
    found, wanted = fold(reply).strip(), fold(text).strip()
    return found.endswith(wanted) or found.rstrip(CLOSERS).endswith(wanted)


def contains(reply: str, words: list[str]) -> bool:
    return all(fold(word) in fold(reply) for word in words)


def excludes(reply: str, words: list[str], language: str) -> bool:
    return not any(has_word(fold(reply), fold(word), language) for word in words)


def keyword_frequency(reply: str, word: str, count: int, relation: str = "at least") -> bool:
    return holds(fold(reply).count(fold(word)), count, relation)


def count_lines(reply: str, count: int, relation: str = "exactly") -> bool:
    return holds(len(lines(visible(reply))), count, relation)


def count_sentences(reply: str, count: int, relation: str = "exactly") -> bool:
    return holds(len(sentences(visible(reply))), count, relation)


def count_words(reply: str, count: int, language: str, relation: str = "at least") -> bool:
    return holds(len(words(visible(reply), language)), count, relation)


def count_paragraphs(reply: str, count: int, relation: str = "exactly") -> bool:
    """Paragraphs are parted by an empty line."""
    blocks = visible(reply).replace("\r\n", "\n").split("\n\n")
    return holds(sum(bool(block.strip()) for block in blocks), count, relation)


def count_bullets(reply: str, count: int, relation: str = "exactly") -> bool:
    """Lines that begin with "-", "*" or "•" and hold something after it."""
    found = [line for line in lines(visible(reply)) if line[0] in "-*•" and line.lstrip("-*• ")]
    return holds(len(found), count, relation)


def quoted(reply: str) -> bool:
    text = visible(reply).strip()
    return len(text) > 2 and QUOTES.get(text[0]) == text[-1]


def no_comma(reply: str) -> bool:
    return not any(comma in reply for comma in COMMAS)


def polite(reply: str, language: str) -> bool:
    if not pack(language).polite:
        raise DataError(
            f"the pack of {language!r} lists no polite ending", do="leave the check out"
        )
    return is_polite(reply, language)


def count_questions(reply: str, count: int, relation: str = "at least") -> bool:
    """Question marks, those in a row as one."""
    return holds(len(re.findall(r"[?？]+", visible(reply))), count, relation)


def count_characters(reply: str, count: int, relation: str = "at most") -> bool:
    """Graphemes, white space left out: a Thai consonant with its signs is one."""
    found = sum(not each.isspace() for each in graphemes(visible(reply)))
    return holds(found, count, relation)


def numbered(reply: str, count: int, relation: str = "exactly") -> bool:
    """Lines "1. ...", "2) ...", "๓. ..." that count up from 1 without a gap and say something."""
    found = [NUMBERED.match(line) for line in lines(latin_digits(visible(reply)))]
    places = [int(line[1]) for line in found if line and any(map(str.isalnum, line[2]))]
    return places == list(range(1, len(places) + 1)) and holds(len(places), count, relation)


def digits(reply: str, kind: str, language: str) -> bool:
    """kind "native": there are digits, and all are the language's own; "none": there is none."""
    kinds = ["native", "none"]
    if kind not in kinds:
        raise DataError(f"unknown kind {kind!r} of digits in a check", do=nearest(kind, kinds))
    found = [character for character in reply if character.isdecimal()]
    if kind == "none":
        return not found
    if not pack(language).digits:
        raise DataError(
            f"the pack of {language!r} has no digits of its own", do="leave the check out"
        )
    return bool(found) and all(digit in pack(language).digits for digit in found)


def cites(reply: str, law_name: str, section_num: str = "") -> bool:
    """Whether one section of a law is named (rewards/cites.py), and not too many others with it."""
    gold = gold_of({"law_name": law_name, "section_num": section_num})
    return share_cited(reply, {gold}) == 1.0


def count_parts(
    reply: str, unit: str, count: int, language: str, relation: str = "exactly"
) -> bool:
    """unit: line, sentence (as the language's own engine cuts it), paragraph, item, hashtag."""
    return holds(len(parts(reply, unit, language)), count, relation)


def each(reply: str, unit: str, check: dict, language: str) -> bool:
    """Every part obeys a check of its own, and there is at least one part."""
    found = parts(reply, unit, language)
    return bool(found) and all(obeys(part, check) for part in found)


def nth(reply: str, unit: str, place: int, check: dict, language: str) -> bool:
    """The part at a place, from 1, or from the end at -1, -2 ..., obeys a check of its own."""
    found = parts(reply, unit, language)
    if not place or abs(place) > len(found):
        return False
    return obeys(found[place - 1 if place > 0 else place], check)


def none_of(reply: str, check: dict) -> bool:
    """The reply does not obey the check."""
    return not obeys(reply, check)


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
    "questions": count_questions,
    "characters": count_characters,
    "numbered": numbered,
    "digits": digits,
    "cites": cites,
    "parts": count_parts,
    "each": each,
    "nth": nth,
    "not": none_of,
    "table": has_table,
    "json": is_json_of,
    "matches": matches,
}

KNOWN = {**CHECKERS, **IFEVAL}
SIGNATURES = {name: signature(checker) for name, checker in KNOWN.items()}


def arguments_of(check: dict) -> dict:
    """A check's arguments. An unknown type, or arguments that its type does not take, is a DataError.

    A null argument is one not given: tables of checks (Arrow, Parquet) fill every row with nulls.
    """
    arguments = {key: value for key, value in check.items() if key != "type" and value is not None}
    name = check.get("type")
    if name not in KNOWN:
        raise DataError(
            f"unknown check type {name!r}", got=check, do=nearest(str(name), list(KNOWN))
        )
    try:
        SIGNATURES[name].bind("", **arguments)
    except TypeError as error:
        raise DataError(
            f"a check of type {name!r} has wrong arguments", wanted=str(error), got=check
        ) from None
    return arguments


def applies(check: dict) -> bool:
    """Whether a check means anything: letter case does not in a language written without it."""
    arguments = arguments_of(check)
    return not check["type"].startswith("change_case:") or has_case(arguments["language"])


def obeys(reply: str, check: dict) -> bool:
    """Whether a reply obeys one check. An unknown type or argument is a DataError."""
    arguments = arguments_of(check)
    text = said(reply)
    return not is_blank(text) and KNOWN[check["type"]](text, **arguments)


def obeys_loosely(reply: str, check: dict) -> bool:
    """Whether one of the eight forms of a reply (rewards/ifeval.py) obeys the check."""
    return any(obeys(form, check) for form in loose_forms(said(reply)))


@dataclass(frozen=True)
class Scores:
    """IFEval's four accuracies, each of so many. Loose is never below strict."""

    prompt_strict: float
    prompt_loose: float
    instruction_strict: float
    instruction_loose: float
    prompts: int
    """Replies with at least one check that applies: what prompt_* are shares of."""
    instructions: int
    """Checks that apply: what instruction_* are shares of."""
    not_applicable: int
    """Checks left out (letter case where there is none)."""


def scores(judged: Iterable[tuple[str, list[dict]]]) -> Scores:
    """The four accuracies of (reply, its checks)."""
    strict: list[list[bool]] = []
    loose: list[list[bool]] = []
    left_out = 0
    for reply, checks in judged:
        found = [check for check in checks if applies(check)]
        left_out += len(checks) - len(found)
        if found:
            strict.append([obeys(reply, check) for check in found])
            loose.append([obeys_loosely(reply, check) for check in found])
    count = sum(map(len, strict))
    return Scores(
        prompt_strict=sum(map(all, strict)) / max(1, len(strict)),
        prompt_loose=sum(map(all, loose)) / max(1, len(strict)),
        instruction_strict=sum(map(sum, strict)) / max(1, count),
        instruction_loose=sum(map(sum, loose)) / max(1, count),
        prompts=len(strict),
        instructions=count,
        not_applicable=left_out,
    )


def constraints(*, level: str = "prompt", loose: bool = False) -> Reward:
    """A reward out of the column `checks`: lists of checks, one list a completion.

    level: "prompt": 1.0 where every check is obeyed, else 0.0. "instruction": the share obeyed.
    loose: obeyed by any of the eight forms of the reply. IFEval's headline is strict and by prompt.

    None where a row has no check that applies. A reply that is padding, the same few words over and
    over (rewards/padding.py), is 0.0 whatever it obeys: lengths and keyword counts are met by it too
    cheaply. The scores of an evaluation do not look at that; IFEval does not.
    """
    levels = {
        "prompt": lambda held: float(all(held)),
        "instruction": lambda held: sum(held) / len(held),
    }
    if level not in levels:
        raise DataError(
            f"there is no level {level!r} of constraints", do=nearest(level, list(levels))
        )
    test, value = obeys_loosely if loose else obeys, levels[level]

    def reward(prompts, completions: list[Completion], checks=None, **columns):
        values: list[float | None] = []
        for completion, wanted in zip(completions, column("checks", checks, completions)):
            found = [check for check in wanted or [] if applies(check)]
            text = reply_text(completion)
            if not found:
                values.append(None)
            else:
                held = [test(text, check) for check in found]
                values.append(0.0 if is_padding(text, found) else value(held))
        return values

    return named(reward, "constraints")
