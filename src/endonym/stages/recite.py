"""Statutes as conversations to learn by heart: "information on law X section Y" -> the passage."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.errors import DataError
from endonym.core.stage import Outcome, Slot, Stage

if TYPE_CHECKING:
    from endonym.data.document import Conversation
    from endonym.data.sections import Section


class ReciteConfig(Config):
    user_turn: bool = True
    """False: the assistant's turn alone (the release's omit_user_turn)."""


def recite(
    config: ReciteConfig, context: Context, out: Path, *, sections: dict[str, Artifact]
) -> Outcome:
    """conversations.parquet: one a passage, the knowledge text of InK-GRPO (METHODS 3b.1).

    The release takes the unique (law, section) pairs of its training questions' gold contexts, which
    the sources of the sections stand for here. Of two sections of one law and number the first is
    kept, the others are counted; two laws are one where their names are the same letter by letter.
    """
    from endonym.data.document import write_table
    from endonym.data.sections import read_sections

    kept: dict[tuple[str, str, str], Section] = {}
    count = 0
    for artifact in sections.values():
        for section in read_sections(artifact.file("sections.parquet")):
            count += 1
            kept.setdefault((section.language, section.book, section.number), section)
    written = write_table(
        out / "conversations.parquet", _conversations(kept.values(), config.user_turn)
    )
    figures = {
        "conversations": written,
        "repeated": count - written,
        "characters": sum(len(section.text) for section in kept.values()),
    }
    return Outcome(figures, [each for one in sections.values() for each in one.record["licences"]])


def _conversations(sections: "Iterator[Section]", user_turn: bool) -> "Iterator[Conversation]":
    from endonym.data.document import Conversation

    for section in sections:
        messages = [{"role": "assistant", "content": section.text}]
        if user_turn:
            messages.insert(0, {"role": "user", "content": asked(section)})
        yield Conversation(
            section.id, messages, section.language, section.source, section.licence, "recite"
        )


def asked(section: "Section") -> str:
    """How a passage is asked for in its language (lang/packs/<language>/recite.toml)."""
    from endonym.lang.pack import read_packed

    phrases = read_packed(section.language, "recite.toml")
    if not phrases:
        raise DataError(
            f"nobody has written how a law is asked for in {section.language!r}",
            where=section.id,
            wanted=f"lang/packs/{section.language}/recite.toml; packs/th/recite.toml says how",
            do="write it, or set user_turn = false",
        )
    phrase = phrases["section" if section.number else "book"]
    return phrase.format(book=section.book, number=section.number)


STAGE = Stage(
    name="recite",
    version=1,
    kind="conversations",
    config=ReciteConfig,
    slots={"sections": Slot("sections", many=True)},
    function=recite,
)
