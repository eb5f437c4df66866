"""Questions to score a model on: generated, from the handbook, the bylaws or sections of laws, or a
benchmark of the catalog."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config, ExternalPath
from endonym.core.context import Context
from endonym.core.errors import DataError, RecipeError
from endonym.core.stage import Outcome, Slot, Stage
from endonym.stages.builtin import lacks_handbook, named_groups, plugged_in
from endonym.stages.source import skills


class ItemSource(Config):
    """One of: builtin = "almanac" | "handbook" | "bylaws" | "sections", or catalog = "NAME" with path =
    "FILE"."""

    builtin: Literal["", "almanac", "handbook", "bylaws", "sections"] = ""
    """sections: the definitions that are plugged in as such (synth/definitions.py)."""
    catalog: str = ""
    path: ExternalPath | None = None
    language: str = ""
    """Of a builtin source."""
    split: Literal["train", "test"] = "test"
    amount: int | None = Field(default=None, gt=0)
    """At most so many items; the almanac needs it."""
    tasks: list[str] = []
    """Skills of the almanac; empty: all that it writes about in the language. Of the bylaws: act, fine."""
    skip: list[str] = []
    """Skills left out of these."""
    optional: bool = False
    """Leave the handbook out, at 0 rows in the report, for a language that has none."""
    forms: list[str] = []
    """Forms of the almanac: question, choice, constraint, switch; empty: all."""
    groups: list[str] = []
    """Groups of the bylaws' towns: old, read, asked, text, never, practice (synth/bylaws.py). Of sections:
    halves of a law's terms, asked and text; empty: both."""
    seed: int = 0
    """Of the bylaws it is the book: another seed, other bylaws and other groups."""


class ItemsConfig(Config):
    sources: list[ItemSource]


def items(
    config: ItemsConfig,
    context: Context,
    out: Path,
    *,
    sections: dict[str, Artifact] | None = None,
) -> Outcome:
    """items.parquet: one row a question, with what is needed to judge a reply (tasks/base.py)."""
    from endonym.tasks.base import write_items

    made, rows, splits = [], [], []
    for source in config.sources:
        found, skipped, statement = _items(source, sections)
        made += found
        splits += statement
        rows.append(
            {
                "source": source.builtin or source.catalog,
                "language": source.language or (found[0].language if found else ""),
                "rows": len(found),
                "licence": ", ".join(sorted({item.licence for item in found})),
                "dropped": sum(skipped.values()),
                "reasons": skipped,
            }
        )
    seen: dict[str, int] = {}
    for item in made:
        seen[item.id] = seen.get(item.id, 0) + 1
    twice = [name for name, count in seen.items() if count > 1]
    if twice:
        raise DataError(
            f"{len(twice)} items share an id",
            got=", ".join(twice[:3]),
            do="name each source once, or give them different seeds",
        )
    write_items(out / "items.parquet", made)
    kinds = {
        kind: sum(item.kind == kind for item in made) for kind in ("answer", "choice", "constraint")
    }
    figures = {"items": len(made), **kinds, "sources": rows, "splits": splits}
    return Outcome(figures, [item.licence for item in made])


def _items(source: ItemSource, sections: dict[str, Artifact] | None):
    """(items, rows that gave none by reason, sentences on the split) of one source."""
    if source.builtin == "almanac":
        from endonym.synth import almanac

        if source.amount is None:
            raise RecipeError("the almanac needs to know how many items", wanted="amount = 400")
        found = almanac.items(
            source.language,
            source.split,
            seed=source.seed,
            amount=source.amount,
            tasks=skills(source.language, source.tasks, source.skip),
            forms=source.forms or almanac.FORMS,
        )
        return found, {}, almanac.split_statement(source.language)
    if source.builtin == "handbook":
        from endonym.synth import handbook

        if source.optional and lacks_handbook("handbook", source.language):
            return [], {}, []
        found = handbook.items(source.language, source.split)
        name = f"handbook ({source.language})"
        statement = (
            f"{name}: recall. All sections are in the training text; of every section one question "
            "is kept for the test and asked nowhere in training."
        )
        return found[: source.amount], {}, [statement]
    if source.builtin == "bylaws":
        from endonym.synth import bylaws

        found = bylaws.items(
            source.language,
            source.split,
            named_groups(source.groups),
            seed=source.seed,
            tasks=source.tasks or bylaws.TASKS,
        )
        return found[: source.amount], {}, [bylaws.split_statement(source.language)]
    if source.builtin == "sections":
        from endonym.synth import definitions

        chosen = definitions.of_halves(plugged_in(sections), source.groups)
        found = definitions.items(chosen, source.split)
        return found[: source.amount], {}, [definitions.split_statement(chosen)]
    if not source.catalog or source.path is None:
        raise RecipeError(
            "a source of items is incomplete",
            wanted='builtin = "almanac", "handbook", "bylaws" or "sections", or catalog = "NAME" with path',
        )
    from endonym.tasks import catalog

    found, skipped = catalog.load(source.catalog, Path(source.path), source.amount)
    return found, skipped, [f"{source.catalog}: an evaluation set; none of its rows is trained on."]


STAGE = Stage(
    name="items",
    version=1,
    kind="items",
    config=ItemsConfig,
    slots={"sections": Slot("sections", many=True, optional=True)},
    function=items,
)
