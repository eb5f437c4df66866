"""`endonym tokenizer`: measure, train, extend."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from endonym.cli import corpora, measured
from endonym.cli.options import AsJson, Language, Texts, print_json
from endonym.core.errors import RecipeError

if TYPE_CHECKING:
    from endonym.tokenizer.folder import Tokenizer

app = typer.Typer(no_args_is_help=True, help="Measure, train and extend tokenizers.")

MEASURED = 3_000_000
"""UTF-8 bytes of each language that a new tokenizer is measured on: a million letters of Thai."""

Parallel = Annotated[
    list[Path] | None,
    typer.Option("--parallel", help="Rows with the same sentence in several languages, by code."),
]
Out = Annotated[Path, typer.Option("--out", help="Folder for the tokenizer.")]
Field = Annotated[str, typer.Option("--field", help="Name of the field that holds the text.")]


@app.command()
def measure(
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help=Texts)] = None,
    tokenizers: Annotated[
        list[str] | None,
        typer.Option("--tokenizer", "-t", metavar="[NAME=]PATH", help="A folder or a file."),
    ] = None,
    parallel: Parallel = None,
    base: Annotated[
        str, typer.Option("--base", help="Language that others are compared to.")
    ] = "en",
    language: Language = "",
    documents: Annotated[
        int | None, typer.Option("--documents", min=1, help="Draw so many documents of each text.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw.")] = 0,
    pattern: Annotated[
        str | None,
        typer.Option("--pattern", help="Family or split pattern of a file that does not tell."),
    ] = None,
    field: Field = "text",
    chart: Annotated[
        Path | None, typer.Option("--chart", metavar="FILE", help="A .svg, .png or .html picture.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tokens a character, bytes a token, tokens a word, and what a language pays against English."""
    if not tokenizers or not (texts or parallel):
        raise RecipeError(
            "there is nothing to measure",
            wanted="a TEXT or --parallel FILE, and --tokenizer PATH, each once or more",
        )
    if pattern and len(tokenizers) > 1:
        raise RecipeError("--pattern goes with one --tokenizer", got=f"{len(tokenizers)} of them")
    if chart is not None:
        _check_chart(chart)
    from endonym.tokenizer import measure as method

    opened = corpora.opened(tokenizers, pattern)
    rows: list[dict[str, Any]] = []
    for text in texts or []:
        code, label, corpus = corpora.corpus(text, language, field)
        sample = corpora.drawn(corpus, documents, seed)
        counted = method.size(sample, code)
        for name, tokenizer in opened.items():
            found = method.measure(tokenizer, sample, code, counted=counted)
            rows.append({"text": label, "language": code, "tokenizer": name} | found.to_dict())
    premiums: list[dict[str, Any]] = []
    for file in parallel or []:
        sides = corpora.sides(file)
        for name, tokenizer in opened.items():
            for code, found in method.premium(tokenizer, sides, base).items():
                known = {
                    "text": corpora.label(file),
                    "base": base,
                    "language": code,
                    "tokenizer": name,
                }
                premiums.append(known | {"sentences": len(sides[base])} | found.to_dict())
    if chart is not None:
        measured.draw(chart, rows, premiums)
    if as_json:
        return print_json({"measures": rows, "premiums": premiums})
    measured.show(rows, premiums)


@app.command()
def train(
    texts: Annotated[list[str], typer.Argument(metavar="TEXT...", help=Texts)],
    size: Annotated[int, typer.Option("--size", min=1, help="Tokens, control tokens included.")],
    out: Out,
    language: Language = "",
    parity: Annotated[
        bool, typer.Option("--parity", help="Merges go to the language that pays most.")
    ] = False,
    superwords_from: Annotated[
        int | None,
        typer.Option("--superwords-from", help="Size at which merges begin to cross spaces."),
    ] = None,
    field: Field = "text",
    as_json: AsJson = False,
) -> None:
    """A byte-level BPE tokenizer from nothing, as a Hugging Face folder."""
    _check_free(out)
    from endonym.tokenizer import train as method
    from endonym.tokenizer.corpus import equal_lengths

    by_language = corpora.by_language(texts, language, field)
    if parity and len(by_language) < 2:
        raise RecipeError(
            "--parity needs texts of two languages or more",
            wanted="th=PATH en=PATH",
            got=", ".join(code or "texts without a language" for code in by_language),
        )
    made = method.train(
        by_language if parity else [text for each in by_language.values() for text in each],
        size,
        _segmenter(by_language),
        parity=equal_lengths(by_language) if parity else None,
        superwords_from=superwords_from,
    )
    made.save(out)
    _report(out, {"vocab_size": made.vocab_size}, {"": made}, by_language, as_json)


@app.command()
def extend(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="A tokenizer's folder or file.")],
    texts: Annotated[list[str], typer.Option("--text", metavar="TEXT", help=Texts)],
    out: Out,
    add: Annotated[int | None, typer.Option("--add", min=1, help="Tokens to add.")] = None,
    size: Annotated[int | None, typer.Option("--size", min=1, help="Tokens in all.")] = None,
    language: Language = "",
    check: Annotated[
        list[str] | None,
        typer.Option("--check", metavar="TEXT", help="Texts whose ids should stay; counted."),
    ] = None,
    keep: Annotated[
        float,
        typer.Option("--keep", min=0.0, max=1.0, help="Share of old tokens kept, by use."),
    ] = 1.0,
    usage: Annotated[
        list[str] | None,
        typer.Option("--usage", metavar="TEXT", help="With --keep: all that must stay readable."),
    ] = None,
    words: Annotated[
        bool, typer.Option("--words/--phrases", help="Merges end at words, or may cross them.")
    ] = True,
    pattern: Annotated[
        str | None,
        typer.Option("--pattern", help="Family or split pattern, if BASE does not tell."),
    ] = None,
    field: Field = "text",
    as_json: AsJson = False,
) -> None:
    """A tokenizer grown for a language by continuing its merges; old ids keep their meaning."""
    if (add is None) == (size is None):
        raise RecipeError("say how far to grow", wanted="--add N or --size N, one of them")
    if (keep < 1) != bool(usage):
        raise RecipeError(
            "--keep and --usage go together: tokens that --usage does not use are dropped first",
            wanted="--keep 0.7 --usage TEXT... (the languages, code and numbers to be read on)",
            got=f"--keep {keep:g}, {len(usage or [])} texts of usage",
        )
    _check_free(out)
    from endonym.lang.script import script_ranges
    from endonym.tokenizer import extend as method
    from endonym.tokenizer.read import read

    old = read(base, pattern)
    by_language = corpora.by_language(texts, language, field)
    if len(by_language) > 1:
        raise RecipeError(
            "a tokenizer is extended for one language at a time",
            got=", ".join(code or "texts without a language" for code in by_language),
        )
    (code, learnt), *_ = by_language.items()
    checked = dict(corpora.corpus(text, "", field)[1:] for text in check or [])
    grown = method.extend(
        old,
        learnt,
        size if size is not None else old.vocab_size + add,
        script=script_ranges(code) if code else None,
        segment=_segmenter(by_language) if words else None,
        keep=keep,
        usage=[text for each in usage or [] for text in corpora.corpus(each, "", field)[2]] or None,
        check=checked or None,
    )
    grown.save(out)
    both = {"before": old, "after": grown.tokenizer}
    _report(out, grown.figures, both, by_language, as_json)


def _segmenter(languages: Iterable[str]) -> Any:
    """The word segmenter of the one language that needs one, or None."""
    from endonym.lang.segment import segmenter

    found = {code: cut for code in languages if code and (cut := segmenter(code)) is not None}
    if len(found) > 1:
        raise RecipeError(
            "two languages without spaces in one vocabulary",
            got=", ".join(found),
            do="train without --language, then merges may cross words",
        )
    return next(iter(found.values()), None)


def _check_free(out: Path) -> None:
    if (out / "tokenizer.json").exists():
        raise RecipeError("there is a tokenizer already", where=out, do="name another folder")


def _check_chart(chart: Path) -> None:
    from endonym.tokenizer.chart import ENDINGS

    if chart.suffix not in ENDINGS:
        raise RecipeError("not a kind of chart", where=chart, wanted=", ".join(ENDINGS))
    if not chart.absolute().parent.is_dir():
        raise RecipeError("there is no folder for the chart", where=chart.parent)


def _report(
    out: Path,
    figures: dict[str, Any],
    tokenizers: "dict[str, Tokenizer]",
    by_language: dict[str, list[str]],
    as_json: bool,
) -> None:
    """What was made, measured on the beginning of what it was made from, by language."""
    from endonym.tokenizer.corpus import head
    from endonym.tokenizer.measure import measure as method

    rows = []
    for code, texts in by_language.items():
        sample = list(head(texts, 1_000_000))
        for name, tokenizer in tokenizers.items():
            found = method(tokenizer, sample, code)
            row = {"text": "what it was made from", "language": code, "tokenizer": name or out.name}
            rows.append(row | found.to_dict())
    if as_json:
        return print_json({"folder": str(out), "figures": figures, "measures": rows})
    typer.echo(measured.told({name: each for name, each in figures.items() if name != "check"}))
    for line in measured.checks(figures.get("check") or {}):
        typer.echo(line)
    measured.show(rows, [])
    typer.echo(f"written: {out}")
