"""The parts of a reply that a rule speaks of: its lines, sentences, paragraphs, items, table, JSON.

An item is a line that begins with a bullet or a number, without that mark; in a reply that has none,
every line is one ("list six names").
"""

import json
import re

import regex

from endonym.core.config import nearest
from endonym.core.errors import DataError
from endonym.lang.normalize import latin_digits
from endonym.lang.segment import lines, sentences
from endonym.rewards.wording import fold, visible

ITEM = re.compile(r"(?:[-*•–✓✔]|\d{1,3}\s?[.):])\s*(.*\w.*)")
HASHTAG = re.compile(r"#[^\s#]+")
PATIENCE = 1.0  # seconds for a regular expression that comes with the data

UNITS = ["line", "sentence", "paragraph", "item", "hashtag"]


def parts(reply: str, unit: str, language: str) -> list[str]:
    """The parts of one kind, in order, without the empty ones."""
    text = visible(reply).replace("\r\n", "\n")
    if unit == "line":
        return lines(text)
    if unit == "sentence":
        return sentences(text, language)
    if unit == "paragraph":
        return [block.strip() for block in re.split(r"\n\s*\n", text) if block.strip()]
    if unit == "item":
        found = [ITEM.fullmatch(latin_digits(line)) for line in lines(text)]
        kept = [line[len(line) - len(m[1]) :] for line, m in zip(lines(text), found) if m]
        return kept or lines(text)
    if unit == "hashtag":
        return HASHTAG.findall(text)
    raise DataError(f"a reply has no parts of the kind {unit!r}", do=nearest(unit, UNITS))


def table(reply: str) -> tuple[list[str], list[list[str]]]:
    """(heads, rows) of the Markdown table in a reply; ([], []) where there is none."""
    found = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines(visible(reply))
        if line.startswith("|") and line.endswith("|") and len(line) > 1
    ]
    if len(found) < 2 or not all(re.fullmatch(r":?-+:?", cell) for cell in found[1]):
        return [], []
    return found[0], found[2:]


def has_table(reply: str, columns: list[str], rows: int) -> bool:
    """Whether the reply holds a Markdown table of these columns, in order, and so many rows."""
    heads, found = table(reply)
    return (
        [fold(head) for head in heads] == [fold(name) for name in columns]
        and len(found) == rows
        and all(len(row) == len(heads) and all(row) for row in found)
    )


def json_value(reply: str) -> object:
    """The object or list that the whole reply is, in a fenced block or bare; None where it is none.

    Brackets more than DEEPEST deep, NaN and numbers too long to read are no JSON here.
    """
    text = reply.strip()
    if text.startswith("```") and text.endswith("```"):
        text = re.sub(r"^```(?:json)?", "", text, flags=re.IGNORECASE).removesuffix("```").strip()
    depth = deepest = 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        deepest = max(deepest, depth)
    if not text.startswith(("{", "[")) or deepest > DEEPEST:
        return None
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return None


DEEPEST = 100


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def is_json_of(
    reply: str,
    keys: list[str] | None = None,
    count: int | None = None,
    values: list | None = None,
) -> bool:
    """Whether the whole reply is JSON: of these keys (each of a list's objects), so many entries, exactly
    this list."""
    found = json_value(reply)
    if found is None or (count is not None and len(found) != count):
        return False
    if keys is not None:
        objects = found if isinstance(found, list) else [found]
        if not all(isinstance(each, dict) and sorted(each) == sorted(keys) for each in objects):
            return False
    return values is None or found == values


def matches(reply: str, pattern: str) -> bool:
    """Whether a regular expression is found in the reply. One that takes too long is not."""
    try:
        return regex.search(pattern, visible(reply), timeout=PATIENCE) is not None
    except TimeoutError:
        return False
    except regex.error as error:
        raise DataError("a check's pattern is none", got=pattern, wanted=str(error)) from None
