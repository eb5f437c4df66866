"""The Thai instructions of thai_ifeval_train (Kanitakorn, MIT) as checks of rewards/constraints.py.

Each of its 252 rows names its constraint by an id of its own ("bullet_count_and_max_words") and by some
of 200 arguments. checks_of() reads the arguments; the id says what a bare "count" counts and whether a
word is wanted in every part. What no program can tell (a tone, a theme, a rhyme, whether a line is a
good translation) is returned by name: so it is known whether a row's checks are all of it.
"""

import tomllib
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from endonym.core.errors import DataError

Check = dict[str, Any]
TH = {"language": "th"}


def checks_of(name: str, kwargs: dict[str, Any]) -> tuple[list[Check], list[str]]:
    """(the checks of a row's constraint, its arguments that no program can tell).

    An argument that nobody has read here is a DataError, and so is a row without a check.
    """
    checks: list[Check] = []
    untold = [key for key in kwargs if key in UNTOLD]
    for key, value in kwargs.items():
        if key in UNTOLD or key in BESIDE:
            continue
        if key not in READERS:
            raise DataError(f"an argument {key!r} that nobody has read", where=name, got=value)
        checks += READERS[key](value, kwargs, name)
    if not checks:
        raise DataError("a constraint of which nothing can be checked", where=name, got=kwargs)
    return checks, untold


KEYS: dict[str, Any] = tomllib.loads(
    files("endonym.tasks").joinpath("thai_constraints.toml").read_text(encoding="utf-8")
)
UNTOLD, BESIDE = frozenset(KEYS["untold"]), frozenset(KEYS["beside"])
MARKS = {"numbering", "number_style", *KEYS["marks"]}
"""Marks of lines that need no dot behind them: ๑, ๒, ..."""
OFTEN = {
    "exact_count": "exactly",
    "occurrences": "exactly",
    "min_count": "at least",
    "min_occurrences": "at least",
    "min_keyword_count": "at least",
}


def words(count: int, relation: str) -> Check:
    """At least or at most so many words, or exactly."""
    name = "length_constraints:number_words"
    return {"type": name, "num_words": count, "relation": relation, **TH}


def counted(unit: str, count: int, kwargs: dict, name: str, relation: str = "exactly") -> Check:
    if unit == "word":
        return words(count, relation)
    if unit == "bullet":
        return {"type": "bullets", "count": count, "relation": relation}
    if unit == "item" and MARKS & kwargs.keys():
        return counted("line", count, {}, name, relation)
    if unit == "item" and ("numbered" in name or "ordered" in name) and "text" not in name:
        return {"type": "numbered", "count": count, "relation": relation}
    return {"type": "parts", "unit": unit, "count": count, "relation": relation, **TH}


def bare_count(count: int, kwargs: dict, name: str) -> list[Check]:
    """What "count" counts is in the id, or a sign beside it."""
    sign = kwargs.get("character") or kwargs.get("punctuation")
    if sign:
        return [often(sign, count, "exactly")]
    if "emoji" in name:
        one = r"[^\p{Emoji_Presentation}]*\p{Emoji_Presentation}"
        return matching(rf"(?s)\A(?:{one}){{{count}}}[^\p{{Emoji_Presentation}}]*\Z")
    if kwargs.get("prefix") == "✓":
        return [counted("line", count, kwargs, name)]
    units = ("sentence", "bullet", "paragraph", "line", "hashtag", "word")
    return [counted(next((unit for unit in units if unit in name), "item"), count, kwargs, name)]


def listed(value: Any) -> list[str]:
    return list(value) if isinstance(value, list) else [value]


def contains(value: Any) -> Check:
    return {"type": "contains", "words": listed(value)}


def often(word: str, count: int, relation: str) -> Check:
    return {"type": "keyword_frequency", "word": word, "count": count, "relation": relation}


def each(unit: str, check: Check) -> Check:
    return {"type": "each", "unit": unit, "check": check, **TH}


def nth(unit: str, place: int, check: Check) -> Check:
    return {"type": "nth", "unit": unit, "place": int(place), "check": check, **TH}


def matching(pattern: str) -> list[Check]:
    return [{"type": "matches", "pattern": pattern}]


def absent(pattern: str) -> list[Check]:
    return [{"type": "not", "check": matching(pattern)[0]}]


def wanted(value: Any, kwargs: dict, name: str) -> list[Check]:
    """Words that must be there: anywhere, so often, or in every line or item."""
    if "not" in name.split("_"):
        return unwanted(value, kwargs, name)
    if isinstance(value, dict):
        return [often(word, count, "exactly") for word, count in value.items()]
    for key, relation in OFTEN.items():
        if key in kwargs and isinstance(value, str):
            return [often(value, kwargs[key], relation)]
    every_item = ("each_item", "per_item", "keyword_per_bullet", "required_token", "list_", "name_")
    if isinstance(value, str) and ("each_line" in name or name == "all_lines_contain"):
        return [each("line", contains(value))]
    if isinstance(value, str) and any(mark in f"{name} {' '.join(kwargs)}" for mark in every_item):
        return [each("item", contains(value))]
    if name == "three_sentences_required_word_period":
        return [each("sentence", contains(value))]
    return [contains(value)]


def unwanted(value: Any, kwargs: dict, name: str) -> list[Check]:
    return [{"type": "excludes", "words": listed(value), **TH}]


def begins(value: Any, kwargs: dict, name: str) -> list[Check]:
    """How the reply begins, or every sentence, line or item of it, as the id says."""
    if isinstance(value, list):  # 1., 2., ...: the marks of a numbered list
        return marks(value, kwargs, name)
    starts = {"type": "starts_with", "text": value}
    if value.strip() == "-" or value == "✓":  # the marks of bullets, which an item is given without
        return [each("line", starts)]
    if value == "#":
        return [each("hashtag", starts)]
    if name == "sentence_count_and_prefix" and "prefix" in kwargs:  # its text says: the first
        return [nth("sentence", 1, starts)]
    if "numbered_items" in name or "steps" in name:
        return [each("line", starts)]
    for word, unit in (
        ("sentence", "sentence"),
        ("line", "line"),
        ("bullet", "item"),
        ("numbered", "item"),
    ):
        if word in name:
            return [each(unit, starts)]
    return [starts]


def ends(value: str, kwargs: dict, name: str) -> list[Check]:
    check = {"type": "ends_with", "text": value}
    if name == "sentence_count_and_suffix":
        return [each("sentence", check)]
    return [each("line", check)] if "line_suffix" in name else [check]


def marks(value: list[str], kwargs: dict, name: str) -> list[Check]:
    """A line for each mark, in order, that begins with it."""
    starts = [{"type": "starts_with", "text": mark} for mark in value]
    return [nth("line", place, check) for place, check in enumerate(starts, start=1)]


def numbers(value: Any, kwargs: dict, name: str) -> list[Check]:
    if isinstance(value, list):
        return marks(value, kwargs, name)
    digits = "๑๒๓๔๕๖๗๘๙" if value == "thai_digits" else "123456789"
    return marks(list(digits[: int(kwargs.get("items") or kwargs["item_count"])]), kwargs, name)


def by_place(unit: str) -> Callable:
    return lambda value, kwargs, name: [nth(unit, n, contains(word)) for n, word in value.items()]


def by_index(value: Any, kwargs: dict, name: str) -> list[Check]:
    """[{"index" or "sentence_index": n, "contains", "required_word" or "term": word}, ...]"""
    found = []
    for each_one in value if isinstance(value, list) else [value]:
        place, word = each_one.values()
        found.append(nth("sentence", place, contains(word)))
    return found


def rows(value: Any, kwargs: dict, name: str) -> list[Check]:
    """A table of the row's columns."""
    count = value if isinstance(value, int) else len(value)
    found: list[Check] = [{"type": "table", "columns": kwargs["columns"], "rows": count}]
    if isinstance(value, list):
        cells = [cell for row in value for cell in listed(row)]
        found.append(contains(cells))
    return found


def speakers(value: list[str], kwargs: dict, name: str) -> list[Check]:
    names = "|".join(value)
    return [
        each("line", matching(rf"\A(?:{names})\s*:")[0]),
        counted("line", kwargs["turns"], kwargs, "line"),
    ]


def rating(value: str, kwargs: dict, name: str) -> list[Check]:
    numbers = "|".join(map(str, range(kwargs["x_max"], kwargs["x_min"] - 1, -1)))
    return [nth("sentence", -1, matching(value.replace("X", f"(?:{numbers})"))[0])]


def _counts(unit: str) -> Callable:
    return lambda value, kwargs, name: [counted(unit, value, kwargs, name)]


def _in_each(unit: str, check: Callable[[Any], Check]) -> Callable:
    return lambda value, kwargs, name: [each(unit, check(value))]


def _ending(text: str) -> Check:
    return {"type": "ends_with", "text": text}


def _beginning(text: str) -> Check:
    return {"type": "starts_with", "text": text}


READERS: dict[str, Callable[[Any, dict, str], list[Check]]] = {
    "count": bare_count,
    "word_count_min": lambda v, k, n: [words(v, "at least")],
    "word_count_max": lambda v, k, n: [words(v, "at most")],
    "min_words": lambda v, k, n: [words(v, "at least")],
    "max_words": lambda v, k, n: [words(v, "at most")],
    "exact_word_count": lambda v, k, n: [words(v, "exactly")],
    "min_sentences": lambda v, k, n: [counted("sentence", v, k, n, "at least")],
    "max_sentences": lambda v, k, n: [counted("sentence", v, k, n, "at most")],
    "max_chars": lambda v, k, n: [{"type": "characters", "count": v, "relation": "at most"}],
    "max_chars_per_line": _in_each("line", lambda v: {"type": "characters", "count": v}),
    "words_per_line": _in_each("line", lambda v: words(v, "exactly")),
    "sentences_per_paragraph": _in_each("paragraph", lambda v: counted("sentence", v, {}, "")),
    "question_count": lambda v, k, n: [{"type": "questions", "count": v, "relation": "exactly"}],
    "final_sentence_must_be_question": lambda v, k, n: [
        nth(
            "sentence",
            -1,
            matching(r"(?:\?|ไหม|หรือไม่|หรือยัง|อะไร|เมื่อไร|เมื่อไหร่|ไหน|อย่างไร|มั้ย)\W*\Z")[0],
        )
    ],
    "last_sentence_suffix": lambda v, k, n: [nth("sentence", -1, _ending(v))],
    "second_paragraph_starts_with": lambda v, k, n: [
        nth("paragraph", 2, {"type": "starts_with", "text": v})
    ],
    "at_least_one_contains": lambda v, k, n: [contains(v)],
    "title": lambda v, k, n: [contains(v)],
    "required_word_in_explanation": lambda v, k, n: [contains(v)],
    "allowed_start_words": _in_each("item", lambda v: matching(rf"\A(?:{'|'.join(v)})")[0]),
    "sentence_constraints": by_index,
    "sentence_requirements": by_index,
    "required": by_index,
    "numbering": numbers,
    "number_style": numbers,
    "pattern": lambda v, k, n: (
        [each("line", matching(v)[0])] if "each_line" in n else matching(rf"(?s){v}")
    ),
    "required_pattern": _in_each("item", lambda v: matching(v)[0]),
    "rating_regex": lambda v, k, n: matching(v),
    "final_pattern": rating,
    "forbidden_chars": lambda v, k, n: (
        [{"type": "not", "check": each("hashtag", contains(" "))}]
        if v == [" "]
        else absent(rf"[{''.join(v)}]")
    ),
    "forbidden_prefix": lambda v, k, n: absent(rf"\A\s*{v}"),
    "forbidden_script": lambda v, k, n: absent(rf"\p{{{v}}}"),
    "forbid_latin_chars": lambda v, k, n: absent(r"\p{Latin}"),
    "forbid_digits": lambda v, k, n: [{"type": "digits", "kind": "none", **TH}],
    "forbid_list": lambda v, k, n: absent(r"(?m)^\s*(?:[-*•]|\d+[.)])\s"),
    "no_numbered_list": lambda v, k, n: absent(r"(?m)^\s*\d+[.)]\s"),
    "require_digit_each_line": lambda v, k, n: [each("line", matching(r"\d")[0])],
    "must_include_number": lambda v, k, n: matching(r"\d"),
    "must_end_with_hashtag": lambda v, k, n: matching(r"#\S+\s*\Z"),
    "speakers": speakers,
    "keys": lambda v, k, n: [{"type": "json", "keys": v}],
    "array_length": lambda v, k, n: [{"type": "json", "keys": k["required_keys"], "count": v}],
    "exact_array": lambda v, k, n: [{"type": "json", "values": v}],
}
for group, reader in {
    "wanted": wanted,
    "unwanted": unwanted,
    "begins": begins,
    "ends": ends,
    "rows": rows,
    "marks": marks,
    "absent": lambda v, k, n: absent(v),
}.items():
    READERS |= dict.fromkeys(KEYS[group], reader)
for group, made in {
    "counts": _counts,
    "by_place": by_place,
    "most_words": lambda unit: _in_each(unit, lambda v: words(v, "at most")),
    "least_words": lambda unit: _in_each(unit, lambda v: words(v, "at least")),
    "each_contains": lambda unit: _in_each(unit, contains),
    "each_ends": lambda unit: _in_each(unit, _ending),
    "each_begins": lambda unit: _in_each(unit, _beginning),
}.items():
    for unit, keys in KEYS[group].items():
        READERS |= dict.fromkeys(keys, made(unit))
