"""What the text stages share: where rows come from, which of them are dropped and why, and a count.

source -> read -> its split -> without exam prompts -> filters -> deduplicated -> amount, times
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from endonym.core.artifact import Artifact
from endonym.core.errors import DataError, RecipeError
from endonym.stages.builtin import lacks_handbook
from endonym.stages.source import Deduplicate, Source, check
from endonym.stages.tally import Tally


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

    check(source, kind)
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
