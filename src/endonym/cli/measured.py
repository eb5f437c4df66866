"""Measures of tokenizers told in tables and in a chart."""

from pathlib import Path
from typing import Any

HEADS = ("vocab", "tokens", "tokens\n/char", "bytes\n/token", "tokens\n/word", "split\nchars")


def told(figures: dict[str, Any]) -> str:
    """Figures by name as one line: "wanted 1,500, added 1,500"; those that are None are left out."""
    parts = []
    for name, value in figures.items():
        if isinstance(value, dict):
            parts.append(f"{name}: ({told(value)})")
        elif value is not None:
            form = {float: ",.4g", int: ",d"}.get(type(value), "")
            parts.append(f"{name} {value:{form}}")
    return ", ".join(parts)


def checks(found: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each text that was checked: whether its ids stayed, and what it costs now."""
    lines = []
    for label, one in found.items():
        before, after = one["bytes_per_token_before"], one["bytes_per_token_after"]
        line = f"{label}: {one['changed']:,} of {one['texts']:,} texts have other ids than before"
        if one["changed"]:
            line += (
                f", bytes per token {before:.3f} -> {after:.3f}; the first: {one['first']!r:.80}"
            )
        lines.append(line)
    return lines


def show(rows: list[dict[str, Any]], premiums: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for label in dict.fromkeys(row["text"] for row in rows):
        found = [row for row in rows if row["text"] == label]
        head = found[0]
        counted = f", {head['words']:,} words" if head["words"] else ""
        said = f"{label}  {head['texts']:,} texts, {head['characters']:,} characters{counted}"
        table = Table(title=said, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        table.add_column("tokenizer", overflow="fold", min_width=9)
        for name in HEADS:
            table.add_column(name, justify="right", no_wrap=True)
        for row in sorted(found, key=lambda row: row["tokens"]):
            each = row["tokens_per_word"]
            table.add_row(
                row["tokenizer"],
                f"{row['vocab_size']:,}",
                f"{row['tokens']:,}",
                f"{row['tokens_per_character']:.4f}",
                f"{row['bytes_per_token']:.2f}",
                f"{each:.2f}" if each else "-",
                f"{row['uncovered_share']:.1%}",
            )
        console.print(table)
    for label in dict.fromkeys(row["text"] for row in premiums):
        found = [row for row in premiums if row["text"] == label]
        head = found[0]
        said = f"{label}  {head['sentences']:,} sentences, tokens for 1 token of {head['base']}"
        codes = [code for code in dict.fromkeys(row["language"] for row in found)]
        codes.remove(head["base"])
        table = Table(
            "tokenizer", title=said, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD
        )
        for code in codes:
            table.add_column(f"{code}: cost", justify="right")
            table.add_column("context", justify="right")
        by_name: dict[str, dict[str, dict]] = {}
        for row in found:
            by_name.setdefault(row["tokenizer"], {})[row["language"]] = row
        for name, each in sorted(by_name.items(), key=lambda item: item[1][codes[0]]["cost"]):
            cells = [(f"{each[c]['cost']:.2f}", f"{each[c]['context']:.0%}") for c in codes]
            table.add_row(name, *(cell for pair in cells for cell in pair))
        console.print(table)


def draw(path: Path, rows: list[dict[str, Any]], premiums: list[dict[str, Any]]) -> None:
    from endonym.core.words import language_names
    from endonym.tokenizer import chart

    def named(code: str) -> str:
        return language_names(code)[0] if code else "tokens per character"

    columns = []
    for label in dict.fromkeys(row["text"] for row in rows):
        found = [row for row in rows if row["text"] == label]
        values = {row["tokenizer"]: row["tokens_per_character"] for row in found}
        title = f"{named(found[0]['language'])}: {label}" if found[0]["language"] else label
        columns.append(
            {
                "title": title,
                "subtitle": "tokens per character",
                "format": ".2f",
                "rule": None,
                "values": values,
            }
        )
    for label, code in dict.fromkeys((row["text"], row["language"]) for row in premiums):
        found = [row for row in premiums if (row["text"], row["language"]) == (label, code)]
        if code != found[0]["base"]:
            columns.append(
                {
                    "title": f"{named(code)}: {label}",
                    "subtitle": f"tokens for one of {named(found[0]['base'])}",
                    "format": ".2f",
                    "rule": 1,
                    "values": {row["tokenizer"]: row["cost"] for row in found},
                }
            )
    chart.write(path, columns, "What a text costs in tokens (less is better)")
