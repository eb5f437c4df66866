"""A short civic handbook of an invented town, as text to learn and questions to answer from it.

handbooks/<language>.md holds about 24 numbered sections; handbooks/<language>.toml two or three
questions a section, each with an answer that stands in the section word for word. Written for this
project and released with it (CC0-1.0). Being invented, nothing in it can have been read elsewhere:
what a model knows of it, it learnt from these sections.

Recall: all sections are training documents; of every section the last question is for testing.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from endonym.core.errors import DataError
from endonym.data.document import Conversation, Document
from endonym.lang.normalize import compose
from endonym.lang.pack import pack
from endonym.tasks.base import Item, task_for

LICENCE = "CC0-1.0"
SOURCE = "endonym handbook"
HEADING = re.compile(r"^## (\d+)\. (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Section:
    number: int
    title: str
    text: str


def languages() -> list[str]:
    """Languages in which there is a handbook."""
    names = [entry.name for entry in files("endonym.synth").joinpath("handbooks").iterdir()]
    return sorted(name.removesuffix(".md") for name in names if name.endswith(".md"))


def title(language: str) -> str:
    """The handbook's name, its first heading."""
    return compose(_read(language, "md")).partition("\n")[0].removeprefix("#").strip()


@lru_cache(maxsize=16)
def sections(language: str) -> tuple[Section, ...]:
    """The numbered sections, in order."""
    text = compose(_read(language, "md"))
    headings = list(HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    return tuple(
        Section(int(heading[1]), heading[2].strip(), " ".join(text[heading.end() : end].split()))
        for heading, end in zip(headings, ends)
    )


def documents(language: str) -> list[Document]:
    """One document a section: its number and title, then its text."""
    return [
        Document(
            f"handbook/{language}/{section.number}",
            f"{section.number}. {section.title}\n{section.text}",
            language,
            SOURCE,
            LICENCE,
        )
        for section in sections(language)
    ]


def items(language: str, split: str) -> list[Item]:
    """The questions of a split ("train" | "test") with their answers, in the handbook's order."""
    rows = tomllib.loads(compose(_read(language, "toml")))["qa"]
    known = {section.number: section for section in sections(language)}
    made = []
    for n, (number, question, answer) in enumerate(rows):
        if answer not in known[number].text:
            raise DataError(
                "an answer does not stand in its section",
                where=f"synth/handbooks/{language}.toml: section {number}",
                wanted=f"words of: {known[number].text}",
                got=answer,
            )
        is_last = n + 1 == len(rows) or rows[n + 1][0] != number
        if (split == "test") == is_last:
            made.append(
                Item(
                    id=f"handbook/{language}/{number}/{n}",
                    kind="answer",
                    task="handbook",
                    language="" if answer.isdecimal() else pack(language).language,
                    messages=[{"role": "user", "content": question}],
                    answer=answer,
                    split=split,
                    source=SOURCE,
                    licence=LICENCE,
                )
            )
    return made


def conversations(language: str) -> Iterator[Conversation]:
    """The training questions, each with its answer."""
    for item in items(language, "train"):
        said = {"role": "assistant", "content": task_for(item.kind).target(item)}
        yield Conversation(
            item.id, [*item.messages, said], item.language, item.source, item.licence, item.task
        )


def _read(language: str, suffix: str) -> str:
    file = files("endonym.synth").joinpath("handbooks", f"{language}.{suffix}")
    if not file.is_file():
        raise DataError(
            f"there is no handbook in {language!r}",
            wanted=", ".join(languages()),
            do="write one: a .md with numbered sections and a .toml with questions",
        )
    return file.read_text(encoding="utf-8")
