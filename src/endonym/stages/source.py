"""A source of rows as a recipe names it, and which of its settings are heeded where."""

import hashlib
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from endonym.core.config import Config, ExternalPath
from endonym.core.errors import RecipeError


class Deduplicate(Config):
    """Of rows that say the same, the first in the order of the sources is kept (data/dedup.py)."""

    exact: bool = True
    """Rows with the same words."""
    similarity: float | None = Field(default=None, gt=0, le=1)
    """Also rows that share so much of theirs: 0.8 is FineWeb's and Gopher's."""

    @model_validator(mode="after")
    def _looks_for_something(self) -> Self:
        if not self.exact and self.similarity is None:
            raise ValueError("without exact, deduplicate needs a similarity")
        return self


class Source(Config):
    """One of: builtin = "almanac" | "handbook" | "bylaws" | "sections"; path = "FILE, FOLDER or PATTERN";
    hub = "ORG/NAME"."""

    builtin: Literal["", "almanac", "handbook", "bylaws", "sections"] = ""
    """sections: what is plugged in as such, of real laws (synth/definitions.py)."""
    path: ExternalPath | None = None
    hub: str = ""
    """A dataset of the Hugging Face Hub. Its name, revision and files bear identity, its bytes do
    not: pin `revision` to a commit. The commit that was read stands in the record."""
    revision: str = ""
    """Of the hub's dataset: a commit, tag or branch. Empty: its main branch at the time of the run."""
    files: str = ""
    """Of the hub's dataset: a pattern of paths, "data/train-*"; empty where it has one data file."""
    columns: dict[str, str] = {}
    """What a file calls things otherwise: {text = "sentence"} (data/read.py)."""
    scores: dict[str, str] = {}
    """Numbers of a file kept as a document's scores: {education = "int_score"}."""
    unit: Literal["paragraph", "file"] = "paragraph"
    """What a row of a .txt file is."""
    catalog: str = ""
    """The catalog's entry (tasks/catalog) that knows how to read the file; for conversations."""
    name: str = ""
    """Shown to readers; empty: the builtin's name or the file's."""
    language: str = ""
    licence: str = ""
    """Of a file's rows; builtin sources carry their own."""
    amount: int | None = Field(default=None, gt=0)
    """At most so many rows; the almanac needs it."""
    split: Literal["", "train", "test"] = ""
    """Of a file and of fluency: rows whose hash falls into `held_out` are "test", the others "train", ""
    is all. Of the almanac's documents: its own split ("" is train)."""
    held_out: float = Field(default=0.02, gt=0, lt=1)
    optional: bool = False
    """Leave the handbook out, at 0 rows in the report, for a language that has none."""
    times: int = Field(default=1, gt=0)
    """How often each row is given: a small source in a large corpus."""
    turns: int = Field(default=1, gt=0)
    """Of the almanac's conversations: 1, 2 ... up to so many questions each, in turn."""
    tasks: list[str] = []
    """Skills of the almanac; empty: all that it writes about in the language. Of the bylaws: act, fine. Of
    sections what is made of them: as documents whole, passage, question, search; as conversations
    question, search; empty: the first."""
    skip: list[str] = []
    """Skills left out of these."""
    forms: list[str] = []
    """Forms of the almanac's conversations; empty: all. Of its documents: such training questions with
    their answers, as plain text, instead of sentences."""
    groups: list[str] = []
    """Groups of the bylaws' towns: old, read, asked, text, never, practice (synth/bylaws.py). Of practice,
    search episodes are made (synth/searches.py), as many as `amount` says. Of sections that are
    definitions: halves of a law's terms, asked and text; empty: both."""
    top: int = Field(default=3, gt=0)
    """Of searches: sections that one of them finds."""
    seed: int = 0
    """Of the bylaws it is the book: another seed, other bylaws and other groups. Of searches in sections:
    of their order."""

    def skills(self) -> list[str]:
        """The almanac's skills that this source asks for."""
        return skills(self.language, self.tasks, self.skip)

    @property
    def shown(self) -> str:
        return self.name or self.builtin or self.hub or Path(self.path or "").name

    def takes(self, row_id: str) -> bool:
        """Whether a file's row belongs to the split that is asked for; a hash of its id decides."""
        if not self.split:
            return True
        digest = hashlib.sha256(row_id.encode()).digest()
        is_test = int.from_bytes(digest[:8], "big") < self.held_out * 2**64
        return is_test == (self.split == "test")


def skills(language: str, tasks: list[str], skip: list[str]) -> list[str]:
    """`tasks`, or all that the almanac writes about in the language, without those in `skip`."""
    from endonym.synth.almanac import tasks_of

    return [skill for skill in tasks or tasks_of(language) if skill not in skip]


FILES = ("path", "hub")
PLACES = {
    "revision": ("hub",),
    "files": ("hub",),
    **dict.fromkeys(("columns", "scores", "unit", "catalog", "licence"), FILES),
    **dict.fromkeys(("tasks", "seed"), ("almanac", "fluency", "bylaws", "sections")),
    "skip": ("almanac", "fluency"),
    **dict.fromkeys(("turns", "forms"), ("almanac",)),
    **dict.fromkeys(("groups", "top"), ("bylaws", "sections")),
    "damage": ("fluency",),
    "optional": ("handbook",),
}
"""Settings that only some places of a source know; all others know every one."""
KINDS = {"scores": "Document", "unit": "Document"} | dict.fromkeys(
    ("catalog", "turns"), "Conversation"
)
"""Settings that only rows of one kind have a use for."""
UNHEARD = {("bylaws", "Document"): ("tasks",)}
"""Settings that a place heeds for rows of another kind only: a text tells the act and the fine."""


def check(source: Source, kind: type) -> None:
    """RecipeError where a source says too little, too much, or what would not be heeded."""
    builtins = [name for name in get_args(type(source).model_fields["builtin"].annotation) if name]
    wanted = ", ".join(
        [*(f'builtin = "{name}"' for name in builtins), 'path = "FILE"', 'or hub = "ORG/NAME"']
    )
    named = [name for name in ("builtin", *FILES) if getattr(source, name)]
    if len(named) != 1:
        raise RecipeError(
            "a source names two places" if named else "a source is incomplete",
            where=f"source {source.shown}".rstrip(),
            wanted=f"one of {wanted}",
            got=", ".join(named) or None,
        )
    place = source.builtin or named[0]
    for name, field in type(source).model_fields.items():
        if getattr(source, name) == field.default:
            continue
        if place not in PLACES.get(name, (place,)):
            wanted, got = f"a source with {' or '.join(PLACES[name])}", place
        elif name in UNHEARD.get((place, kind.__name__), ()):
            wanted, got = "another kind of rows", f"{kind.__name__.lower()}s"
        elif KINDS.get(name, kind.__name__) != kind.__name__:
            wanted, got = f"a stage that makes {KINDS[name].lower()}s", f"{kind.__name__.lower()}s"
        else:
            continue
        raise RecipeError(
            f"the setting {name!r} would not be heeded",
            where=f"source {source.shown}",
            wanted=wanted,
            got=got,
            do="leave it out",
        )
    has_test = place in (*FILES, "fluency") or (
        (place, kind.__name__) == ("almanac", "Document") and not source.forms
    )
    if source.split == "test" and not has_test:
        raise RecipeError(
            f"the {place} has no test rows among its {kind.__name__.lower()}s",
            where=f"source {source.shown}",
            wanted='split = "train", or none',
            do="its test questions are made by the stage `items`",
        )
