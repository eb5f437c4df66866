"""What the text stages share: where rows come from, which of them are dropped and why, and a count.

source -> read -> its split -> without exam prompts -> filters -> deduplicated -> amount, times
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from endonym.core.artifact import Artifact
from endonym.core.config import Config, ExternalPath, nearest
from endonym.core.errors import DataError, RecipeError
from endonym.stages.tally import Tally


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


def statute_rows(
    source: Source,
    plain: Callable[..., Iterable[Any]],
    searches: Callable[..., Iterable[Any]],
) -> Iterator[Any]:
    """Rows of a source of bylaws: those of `plain` of the groups that may be told outright, then those
    of `searches` of the towns that are only practised on."""
    how: dict[str, Any] = {"seed": source.seed}
    groups = named_groups(source.groups)
    told = [group for group in groups if group != "practice"]
    if told:
        yield from plain(source.language, told, **how)
    if "practice" in groups:
        if source.amount is None:
            raise RecipeError(
                "search episodes have no end",
                where=f"source {source.shown}: groups",
                wanted="amount = 2000",
            )
        yield from searches(source.language, ["practice"], top=source.top, **how)


def section_rows(
    source: Source,
    sections: dict[str, Artifact] | None,
    makers: dict[str, Callable[..., Iterable[Any]]],
) -> Iterator[Any]:
    """Rows of a source of sections: what each of its tasks makes of them, one after another.

    makers: by task; of "search" what takes top and seed too
    """
    from endonym.synth.definitions import of_halves

    chosen = of_halves(plugged_in(sections), source.groups)
    for task in source.tasks or list(makers)[:1]:
        if task not in makers:
            raise RecipeError(
                f"nothing of the kind {task!r} is made of sections here",
                where=f"source {source.shown}: tasks",
                do=nearest(task, list(makers)),
            )
        how = {"top": source.top, "seed": source.seed} if task == "search" else {}
        yield from makers[task](chosen, **how)


def plugged_in(sections: dict[str, Artifact] | None) -> list[Any]:
    """All sections of the input `sections`."""
    from endonym.data.sections import read_sections

    if not sections:
        raise RecipeError(
            "there are no sections to make rows of",
            where='builtin = "sections"',
            wanted='sections = ["@..."] of a stage `sections`',
        )
    return [row for one in sections.values() for row in read_sections(one.file("sections.parquet"))]


def named_groups(groups: list[str]) -> list[str]:
    """The groups of towns that a source of bylaws names; it must, for what they are kept out of is all
    their worth."""
    if not groups:
        raise RecipeError(
            "a source of bylaws does not say which towns",
            wanted='groups = ["old"], or others of synth/bylaws.py',
        )
    return groups


def lacks_handbook(builtin: str, language: str) -> bool:
    """Whether a source is the handbook of a language in which there is none."""
    from endonym.synth import handbook

    return builtin == "handbook" and language not in handbook.languages()


def gather(
    sources: list[Source],
    builtin: Callable[[Source], Iterator[Any]],
    kind: type,
    tally: Tally,
    without: dict[str, Artifact],
    quarantine: Path,
    limit: float,
    *,
    deduplicate: Deduplicate | None = None,
    filters: bool = False,
) -> Iterator[Any]:
    """Rows of every source in order: read, split, cleaned and deduplicated, counted into `tally`.

    builtin: rows of a source that is not a file. quarantine: the file for rows that cannot be read.
    filters: documents must pass the filters of their language's pack (lang/quality.py).

    Of a source with an `amount` rows are read until it is reached, and some ahead: what is counted as
    dropped or quarantined is counted among those. DataError where no row is left of any source.
    """
    from endonym.data.decontaminate import Decontaminator

    prompts = {name: list(_prompts(exam)) for name, exam in without.items()}
    clean, once = Decontaminator(prompts), _deduplicator(deduplicate)
    for number, source in enumerate(sources):
        tally.of(source)
        if source.optional and lacks_handbook(source.builtin, source.language):
            continue
        aside = quarantine.with_name(f"{quarantine.stem}.{number}{quarantine.suffix}")
        rows, reading = _rows(source, builtin, kind, tally, aside, limit)
        reasons, exams, missed = _so_far(clean, once), _by_exam(clean), Counter()
        rows = clean(rows)
        if filters:
            rows = _filtered(rows, source, missed)
        if once:
            rows = once(rows, source.amount)
        for row in islice(rows, source.amount):
            tally.take(source, row)
            for _ in range(source.times):
                yield row
        tally.drop(source, _so_far(clean, once) - reasons + missed, exams=_by_exam(clean) - exams)
        if reading is not None:
            tally.of(source)["quarantined"] += reading.rows_quarantined
            reading.check()  # `amount` may have ended it early
    if not tally.rows:
        raise DataError(
            "no row is left of any source",
            where="sources",
            wanted="at least one row",
            got=tally.told(),
            do="loosen what drops them, or mend the files",
        )


def _so_far(clean: Any, once: Any) -> Counter[str]:
    """Rows that were dropped up to now, by reason."""
    found = Counter(once.counts) if once else Counter()
    del found["kept"]
    return found + Counter({"contamination": clean.counts.total() - clean.counts["kept"]})


def _by_exam(clean: Any) -> Counter[str]:
    return Counter({exam: reasons.total() for exam, reasons in clean.by_exam.items()})


def _rows(
    source: Source,
    builtin: Callable[[Source], Iterator[Any]],
    kind: type,
    tally: Tally,
    aside: Path,
    limit: float,
) -> tuple[Iterator[Any], Any]:
    """The rows of a source's split, and the Reading that counts them if they come out of files."""
    from endonym.data.read import Reading

    _check(source, kind)
    if source.builtin:
        return builtin(source), None
    files = _files(source, tally)
    if source.catalog:
        from endonym.tasks import catalog

        parts = [catalog.load_conversations(source.catalog, file) for file in files]
        tally.of(source)["quarantined"] += sum(sum(skipped.values()) for _, skipped in parts)
        found = chain.from_iterable(rows for rows, _ in parts)
        return (row for row in found if source.takes(row.id)), None
    reading = Reading(
        files,
        kind,
        quarantine=aside,
        limit=limit,
        columns=source.columns,
        scores=source.scores,
        unit=source.unit,
        language=source.language,
        source=source.shown,
        licence=source.licence,
    )
    return (row for row in reading if source.takes(row.id)), reading


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


def _check(source: Source, kind: type) -> None:
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


def _files(source: Source, tally: Tally) -> list[Path]:
    from endonym.data.files import find

    if not source.hub:
        return [Path(source.path)] if source.catalog else find(source.path)
    from endonym.data.hub import dataset

    found = dataset(source.hub, source.revision, source.files)
    tally.of(source)["revision"] = found.commit
    return found.files


def _deduplicator(config: Deduplicate | None) -> Any:
    if config is None:
        return None
    from endonym.data.dedup import Deduplicator

    return Deduplicator(exact=config.exact, similarity=config.similarity)


def _filtered(rows: Iterable[Any], source: Source, missed: Counter[str]) -> Iterator[Any]:
    """The documents that pass the filters of their language's pack; the first threshold that each of
    the others misses is counted."""
    from endonym.lang.pack import pack
    from endonym.lang.quality import measures, refused

    for row in rows:
        language = row.language or source.language
        if not language:
            raise RecipeError(
                "filters need to know the language",
                where=f"{source.shown}: {row.id}",
                wanted='language = "th", of the source or of its rows',
            )
        reasons = refused(measures(row.text, language), pack(language).filters)
        if reasons:
            missed[f"filters.{reasons[0]}"] += 1
        else:
            yield row


def _prompts(exam: Artifact) -> Iterator[str]:
    """What of an exam must not stand in training data: its questions, word for word."""
    from endonym.tasks.base import read_items

    for item in read_items(exam.file("items.parquet")):
        yield item.messages[-1]["content"]
