"""Rows that the stages make themselves: of the book of bylaws, and of sections that are plugged in."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from endonym.core.artifact import Artifact
from endonym.core.config import nearest
from endonym.core.errors import RecipeError
from endonym.stages.source import Source


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
