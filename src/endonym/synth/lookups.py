"""Search episodes in real laws: a question about a definition or a section, search, find, answer.

    user       “ดาวเทียม” ตาม<law> หมายความว่าอย่างไร
    assistant  search_law(query_list = ["ดาวเทียม <law>"])
    tool       [{"law_name": "...", "section_num": "4", "title": "ดาวเทียม", "text": "..."}]
    assistant  the text that was found

A section without a title is asked for by its number, in the words of the pack's recite.toml, and answered
whole. Where the search does not find what is asked about first, or its text does not fit into the tool's
answer, there is no episode: a model must not learn to say what it was not told.

As in synth/searches.py these are conversations to imitate, and logs in plain text that teach a small model
to copy. Laws do not change from one reading to the next, so there is one episode a wording, and what may
be learnt by heart from them must not be what is asked later.
"""

import json
from collections.abc import Iterator, Sequence
from random import Random

from endonym.data.document import Conversation, Document
from endonym.data.sections import Section
from endonym.lang.pack import read_packed
from endonym.rollouts.library import Library
from endonym.synth import definitions, searches


def conversations(
    sections: Sequence[Section], *, seed: int = 0, top: int = 3
) -> Iterator[Conversation]:
    """One for each training question of each section, in an order that the seed decides.

    top: sections that one search finds; it should be the test's
    """
    library = Library(sections, sections[0].language, top)
    every = [
        (one, way, question)
        for one in sections
        for way, question in enumerate(_questions(one))
        if _found(library, one)
    ]
    Random(f"lookups {seed}").shuffle(every)
    for one, way, question in every:
        yield searches.episode(
            library,
            f"lookups/{one.id}/{way}",
            question,
            _query(one),
            one.text,
            like=one,
            task="definitions" if one.title else "sections",
        )


def documents(sections: Sequence[Section], *, seed: int = 0, top: int = 3) -> Iterator[Document]:
    """The same as logs."""
    return searches.logs(conversations(sections, seed=seed, top=top))


def _found(library: Library, section: Section) -> bool:
    query = _query(section)
    first = library.search([query], 1)
    as_told = json.dumps(section.text, ensure_ascii=False)
    return first == [section] and as_told in library.search_law([query])


def _query(section: Section) -> str:
    words = definitions.words_of(section.language)
    form = words.query if section.title else words.section_query
    return form.format(term=section.title, law=section.book, number=section.number)


def _questions(section: Section) -> list[str]:
    if section.title:
        return definitions.asked(section, "train")
    phrase = read_packed(section.language, "recite.toml")["section"]
    return [phrase.format(book=section.book, number=section.number)]
