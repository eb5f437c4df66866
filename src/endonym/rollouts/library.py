"""A library of statutes to search and to read in: the environment of InK-GRPO's agentic part.

    search_law(query_list)              -> the `top` sections that fit the queries best
    read_law(law_name, section_num?)    -> one section, or the whole law

as its release has them (arXiv:2601.18129, METHODS.md 3b.2). Answers are JSON of at most `limit`
characters. Where they are too long the sections' texts are shortened, all to one length, so that an
answer stays JSON and every law and number stays readable (the release cuts through the whole string).

Search is BM25 over words (rollouts/words_index.py) and, where an embedding model is given, its vectors
too, fused by reciprocal rank (Cormack, Clarke, Buettcher 2009). Of several queries each gives its best
first. The release ranks by vectors alone and gives `top` sections a query, of which its 1,024 characters
rarely show more than the first.

Reading departs from the release where that loses sections: digits of any script and any spelling of a
number are understood; a law's sections come in the law's order, not sorted as strings (1, 10, 2); and of
several laws whose names are part of the given one, or it of theirs, the nearest in length is meant, not
the longest.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from endonym.core.errors import DataError
from endonym.data.document import Messages, Prompt
from endonym.data.sections import Section
from endonym.lang.citations import cited, section_number
from endonym.lang.normalize import compose
from endonym.rollouts.environment import function_tool, tool_message
from endonym.rollouts.words_index import WordsIndex

if TYPE_CHECKING:
    from endonym.rollouts.vectors import Vectors

MAX_QUERIES, MAX_LENGTH = 16, 2000
"""Of one search, and characters of a query or a name: a model may write ten megabytes of either."""
DEPTH = 50
"""Sections of each ranking that are fused."""
FUSION = 60
"""The constant of reciprocal rank fusion."""

SEARCH = function_tool(
    "search_law",
    "Search the laws.",
    {"query_list": {"type": "array", "items": {"type": "string"}}},
    ["query_list"],
)
READ = function_tool(
    "read_law",
    "Read a section of a law.",
    {"law_name": {"type": "string"}, "section_num": {"type": "string"}},
    ["law_name"],
)


@dataclass
class Visit:
    """What was done in an episode: queries asked, ids of sections found, ids of sections read."""

    queries: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)


class Library:
    """Sections to search and read, as an Environment (rollouts/environment.py).

    top:      sections that a search gives
    limit:    characters of an answer
    keeps:    what is left of a text that is too long: its "beginning", its "end" or both "ends"; the
              release's "left", "right" and "middle", of which it runs the last
    vectors:  of an embedding model, made of these sections (rollouts/vectors.py)
    """

    tools = [SEARCH, READ]

    def __init__(
        self,
        sections: Sequence[Section],
        language: str,
        top: int = 3,
        limit: int = 1024,
        *,
        keeps: Literal["beginning", "ends", "end"] = "ends",
        embedder: "Callable[[Sequence[str]], Vectors] | None" = None,
    ):
        if not sections:
            raise DataError("a library without sections", wanted="at least one")
        self.sections, self.language = list(sections), language
        self.top, self.limit, self.keeps = top, limit, keeps
        texts = [shown(section) for section in self.sections]
        self.words = WordsIndex(texts, language)
        self.vectors = embedder(texts) if embedder else None
        self._books: dict[str, list[Section]] = {}
        for section in self.sections:
            self._books.setdefault(_name(section.book), []).append(section)
        self._numbers = {
            name: {section_number(each.number): each for each in reversed(book)}
            for name, book in self._books.items()
        }

    # --- the environment ------------------------------------------------------------------------

    def reset(self, prompt: Prompt, seed: int) -> tuple[Visit, Messages]:
        return Visit(), prompt.messages

    def step(self, state: Visit, message: dict[str, Any]) -> tuple[Messages, bool]:
        told = []
        for call in message.get("tool_calls", []):
            function = call["function"]
            act = self._search if function["name"] == "search_law" else self._read
            told.append(tool_message(call, act(state, **function["arguments"])))
        return told, not told

    def reward(self, state: Visit, messages: Messages) -> float | None:
        return None

    def check(self, state: Visit) -> dict[str, Any]:
        return asdict(state)

    # --- searching ------------------------------------------------------------------------------

    def search(self, queries: Sequence[str], top: int | None = None) -> list[Section]:
        """The sections that fit the queries best: the first of each query, then the seconds ..., those
        that several queries find before others of the same rank."""
        rankings = [self.words.rankings(queries, DEPTH)]
        if self.vectors:
            rankings.append(self.vectors.rankings(queries, DEPTH))
        best: dict[int, int] = {}
        score: dict[int, float] = {}
        for of_query in zip(*rankings):
            fused = fuse(of_query)
            for rank, number in enumerate(fused, start=1):
                best[number] = min(rank, best.get(number, rank))
                score[number] = score.get(number, 0.0) + 1 / (FUSION + rank)
        order = sorted(best, key=lambda number: (best[number], -score[number], number))
        return [self.sections[number] for number in order[: self.top if top is None else top]]

    def search_law(self, query_list: Sequence[str]) -> str:
        """What the tool of this name answers."""
        return self._search(Visit(), list(query_list))

    def _search(self, state: Visit, query_list: list[str]) -> str:
        if not any(query.strip() for query in query_list):
            return _error("no query")
        if len(query_list) > MAX_QUERIES:
            return _error("too many queries", at_most=MAX_QUERIES)
        if any(len(query) > MAX_LENGTH for query in query_list):
            return _error("a query is too long", at_most=MAX_LENGTH)
        found = self.search(query_list)
        state.queries += query_list
        state.found += [section.id for section in found]
        return self._told(found) if found else _error("nothing found")

    # --- reading --------------------------------------------------------------------------------

    def read_law(self, law_name: str, section_num: str = "") -> str:
        """What the tool of this name answers."""
        return self._read(Visit(), law_name, section_num)

    def read(self, law_name: str, section_num: str = "") -> list[Section]:
        """The section; without a number, or in a law without numbers, all sections of the law in its
        order; [] where there is none.

        A name that no law has exactly stands for a law whose name is part of it or has it as a part, of
        several for the one nearest in length. A number that follows a law's name, as in "<name> มาตรา 12",
        is read as the section's.
        """
        name = self._law(law_name)
        if name is None:
            return []
        numbers = self._numbers[name]
        number = section_number(section_num)
        if not number:
            rest = _name(law_name).partition(name)[2]
            number = next(iter(cited(rest)), "") or section_number(rest)
            number = number if cited(rest) or number in numbers else ""
        if not number or numbers.keys() == {""}:
            return self._books[name]
        found = numbers.get(number)
        if found is None:  # a paragraph of a section: "40 (8)"
            found = numbers.get(section_number(number.partition("(")[0]))
        return [found] if found else []

    def _read(self, state: Visit, law_name: str, section_num: str = "") -> str:
        if max(len(law_name), len(section_num)) > MAX_LENGTH:
            return _error("a name is too long", at_most=MAX_LENGTH)
        found = self.read(law_name, section_num)
        if found:
            state.read += [section.id for section in found]
            return self._told(found, as_one=True)
        name = self._law(law_name)
        if name is None:
            return _error("no such law")
        return _error("no such section", law_name=self._books[name][0].book)

    def _law(self, given: str) -> str | None:
        wanted = _name(given)
        if not wanted or wanted in self._books:
            return wanted or None
        alike = [name for name in self._books if name and (name in wanted or wanted in name)]
        return min(alike, key=lambda name: abs(len(name) - len(wanted)), default=None)

    # --- telling --------------------------------------------------------------------------------

    def _told(self, sections: list[Section], as_one: bool = False) -> str:
        """JSON of sections, {"law_name", "section_num", "title", "text"} without what is empty: a list
        of them, or `as_one` the sections of one law as a single text."""
        if as_one and len(sections) > 1:
            lines = [f"{each.number} {each.title}".strip() + f"\n{each.text}" for each in sections]
            told: Any = {"law_name": sections[0].book, "text": "\n".join(lines)}
        elif as_one:
            told = _entry(sections[0])
        else:
            told = [_entry(section) for section in sections]
        return self._shortened(told)

    def _shortened(self, told: Any) -> str:
        """The JSON of entries with their texts cut to the one length at which it has `limit` characters."""

        def at(length: int | None) -> str:
            cut = [
                each | {"text": each["text"] if length is None else self._cut(each["text"], length)}
                for each in (told if isinstance(told, list) else [told])
            ]
            return json.dumps(cut if isinstance(told, list) else cut[0], ensure_ascii=False)

        whole = at(None)
        if len(whole) <= self.limit:
            return whole
        fits, most = 0, self.limit
        while fits < most:
            middle = (fits + most + 1) // 2
            fits, most = (middle, most) if len(at(middle)) <= self.limit else (fits, middle - 1)
        text = at(fits)
        if len(text) > self.limit and isinstance(told, list) and len(told) > 1:
            return self._shortened(told[:-1])
        return text[: self.limit]

    def _cut(self, text: str, length: int) -> str:
        if len(text) <= length:
            return text
        if length == 0:
            return ""
        if self.keeps == "beginning":
            return text[: length - 1] + "…"
        if self.keeps == "end":
            return "…" + text[len(text) - length + 1 :]
        front = length // 2
        return text[:front] + "…" + text[len(text) - (length - front - 1) :]


def fuse(rankings: Sequence[Sequence[int]]) -> list[int]:
    """One ranking out of several by reciprocal rank: score = sum over rankings of 1 / (60 + rank)."""
    score: dict[int, float] = {}
    for ranking in rankings:
        for rank, number in enumerate(ranking, start=1):
            score[number] = score.get(number, 0.0) + 1 / (FUSION + rank)
    return sorted(score, key=lambda number: (-score[number], number))


def shown(section: Section) -> str:
    """A section as it is indexed: its law, number and title, then its text."""
    head = " ".join(part for part in (section.book, section.number, section.title) if part)
    return f"{head}\n{section.text}"


def _entry(section: Section) -> dict[str, str]:
    told = {
        "law_name": section.book,
        "section_num": section.number,
        "title": section.title,
        "text": section.text,
    }
    return {key: value for key, value in told.items() if value or key == "text"}


def _error(what: str, **facts: Any) -> str:
    return json.dumps({"error": what} | facts, ensure_ascii=False)


def _name(book: str) -> str:
    return " ".join(compose(book).casefold().split())
