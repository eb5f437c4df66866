"""Terms that real laws define: questions with one right answer that cannot be guessed, out of sections.

    section 3   “พลังงานสิ้นเปลือง” หมายความว่า ...                  lang/packs/<language>/definitions.toml
      -> definition   law, number, title = the term, text = its meaning        a Section of its own
      -> document     "“พลังงานสิ้นเปลือง” ใน<law> หมายความว่า ...", one of six ways   (passage)
                      a training question and its answer                        (question)
      -> question     "“พลังงานสิ้นเปลือง” ตาม<law> หมายความว่าอย่างไร" -> the meaning

Left out of the definitions and counted: those that go on in a list or another line, those of a term
that its law defines twice, those that another law gives in the same words (who knows the one knows the
other: รัฐมนตรี is "the minister in charge of this act" in most acts).

The terms of a law fall into two halves by a hash: `asked` may be asked about in training, `text` stands
in text alone, so that what a model knows of it, it has from there. Test questions are worded as no
training question is. Search episodes on the same sections are made by synth/lookups.py.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from endonym.core.config import Config, nearest
from endonym.core.errors import DataError
from endonym.data.document import Conversation, Document
from endonym.data.sections import Section
from endonym.lang.locale import stable_hash
from endonym.lang.normalize import compose
from endonym.lang.pack import read_packed
from endonym.tasks.base import Item

HALVES = ("asked", "text")
FOOTNOTE = "*"
"""What marks, in a law's published text, words that a later law has put there."""


class Questions(Config):
    train: list[str]
    test: list[str]


class Words(Config):
    """A language's definitions.toml."""

    pattern: str
    """Of a definition in a section's text, with the groups term and meaning."""
    next: str
    """Of what may begin the line after it."""
    query: str
    section_query: str
    passages: list[str]
    questions: Questions


def definitions(sections: Sequence[Section]) -> tuple[list[Section], Counter[str]]:
    """The terms that the sections define, each as a section whose title is the term and whose text is
    its meaning; and how many were left out, by reason."""
    left_out: Counter[str] = Counter()
    found = [one for section in sections for one in _defined(section, left_out)]
    by_term = Counter((one.book, one.title) for one in found)
    by_meaning = Counter((one.title, one.text) for one in found)
    kept = []
    for one in found:
        if by_term[one.book, one.title] > 1:
            left_out["defined twice in its law"] += 1
        elif by_meaning[one.title, one.text] > 1:
            left_out["another law says the same"] += 1
        else:
            kept.append(one)
    return kept, left_out


def _defined(section: Section, left_out: Counter[str]) -> Iterator[Section]:
    words = words_of(section.language)
    for found in re.finditer(words.pattern, section.text, re.MULTILINE):
        after = section.text[found.end() :].lstrip("\n")
        if after and not re.match(words.next, after):
            left_out["goes on in another line"] += 1
            continue
        term, meaning = (
            " ".join(found[name].replace(FOOTNOTE, "").split()) for name in ("term", "meaning")
        )
        yield replace(section, id=f"{section.id}/{term}", title=term, text=meaning)


def of_halves(sections: Sequence[Section], halves: Sequence[str]) -> list[Section]:
    """The definitions whose term falls into these halves of its law; none named: all."""
    for half in halves:
        if half not in HALVES:
            raise DataError(f"there is no half {half!r} of a law's terms", do=nearest(half, HALVES))
    return [one for one in sections if not halves or half_of(one) in halves]


def half_of(definition: Section) -> str:
    return HALVES[stable_hash(f"half {definition.book} {definition.title}") % 2]


def items(sections: Sequence[Section], split: str) -> list[Item]:
    """Every question of a split ("train" | "test") about every definition.

    One way of asking after another, so that the first so many items ask about all terms.
    """
    _need_terms(sections)
    return [
        Item(
            id=f"{one.id}/{split}/{way}",
            kind="answer",
            task="definitions",
            language=one.language,
            messages=[{"role": "user", "content": question}],
            answer=one.text,
            split=split,
            source=one.source,
            licence=one.licence,
        )
        for way in range(max(len(asked(one, split)) for one in sections))
        for one in sections
        for question in asked(one, split)[way : way + 1]
    ]


def asked(definition: Section, split: str) -> list[str]:
    """The questions of a split about a definition."""
    questions = words_of(definition.language).questions
    ways = questions.test if split == "test" else questions.train
    return [_filled(way, definition) for way in ways]


def conversations(sections: Sequence[Section]) -> Iterator[Conversation]:
    """The training questions with their answers."""
    for item in items(sections, "train"):
        messages = [*item.messages, {"role": "assistant", "content": item.answer}]
        yield Conversation(item.id, messages, item.language, item.source, item.licence, item.task)


def whole(sections: Sequence[Section]) -> Iterator[Document]:
    """Each section as its law has it, after the law's name and its number; of a definition the term is
    its title."""
    for one in sections:
        head = " ".join(part for part in (one.book, one.number, one.title) if part)
        text = f"{head}\n{one.text}"
        yield Document(f"{one.id}/whole", text, one.language, one.source, one.licence)


def passages(sections: Sequence[Section]) -> Iterator[Document]:
    """Each definition in every way in which the language's pack says it."""
    _need_terms(sections)
    for way in range(max(len(words_of(one.language).passages) for one in sections)):
        for one in sections:
            for passage in words_of(one.language).passages[way : way + 1]:
                text = _filled(passage, one)
                yield Document(f"{one.id}/{way}", text, one.language, one.source, one.licence)


def answered(sections: Sequence[Section]) -> Iterator[Document]:
    """The training questions with their answers as plain text: who has seen questions answered beside
    the text can answer others from text alone (Allen-Zhu and Li 2023, arXiv:2309.14316)."""
    for item in items(sections, "train"):
        text = f"{item.messages[0]['content']}\n{item.answer}"
        yield Document(f"{item.id}/answered", text, item.language, item.source, item.licence)


def split_statement(sections: Sequence[Section]) -> str:
    """What is held out and how, in a sentence for a report."""
    laws = len({one.book for one in sections})
    return (
        f"definitions: {len(sections)} terms of {laws} laws. The test questions are worded as no training "
        "question is; the laws a model may have read are named by the recipe, and of those taught beside "
        "reinforcement one half of the terms is never asked about."
    )


def _filled(form: str, one: Section) -> str:
    return compose(form.format(term=one.title, law=one.book, meaning=one.text, number=one.number))


def _need_terms(sections: Sequence[Section]) -> None:
    without = next((one for one in sections if not one.title), None)
    if without or not sections:
        raise DataError(
            "a section defines no term" if without else "there is no definition to ask about",
            where=without and without.id,
            wanted="a source of sections with definitions = true",
        )


@lru_cache(maxsize=64)
def words_of(language: str) -> Words:
    found = read_packed(language, "definitions.toml")
    if not found:
        raise DataError(
            f"nobody has written how laws define terms in {language!r}",
            wanted=f"lang/packs/{language}/definitions.toml; packs/th/definitions.toml says how",
        )
    return Words.read(found, where=f"lang/packs/{language}/definitions.toml")
