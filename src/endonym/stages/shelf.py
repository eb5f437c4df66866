"""A library to search and read, opened by the stages that let a model use one."""

from typing import TYPE_CHECKING

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.errors import DataError

if TYPE_CHECKING:
    from endonym.rollouts.library import Library


class AgentConfig(Config):
    """Episodes with tools (rollouts/agent.py), where a library is plugged in."""

    max_turns: int = Field(default=5, gt=0)
    """How often a model is answered; it may then speak once more."""
    max_tokens: int = Field(default=8192, gt=0)
    """Of the whole response, tool text included."""
    top: int = Field(default=3, gt=0)
    """Sections that a search gives for each query."""
    limit: int = Field(default=1024, gt=0)
    """Characters of what a tool says."""


def opened(
    library: Artifact, embedder: Artifact | None, config: AgentConfig, context: Context
) -> "Library":
    """The library that the sections make, in their language; with an embedding model its searches are
    by words and by vectors, which are kept in context.scratch."""
    from endonym.data.sections import read_sections
    from endonym.rollouts.library import Library

    sections = read_sections(library.file("sections.parquet"))
    languages = sorted({section.language for section in sections})
    if len(languages) != 1:
        raise DataError(
            "a library speaks one language",
            where="library",
            wanted="sections of one language",
            got=", ".join(languages),
        )
    vectors = None
    if embedder is not None:
        from endonym.rollouts.vectors import Embedder

        vectors = Embedder(
            embedder.path, cache=context.scratch / "vectors", device=str(context.device)
        )
    return Library(sections, languages[0], top=config.top, limit=config.limit, embedder=vectors)
