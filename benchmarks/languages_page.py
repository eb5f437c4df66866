"""The figures of benchmarks/languages.py as Markdown tables."""

from typing import Any


def page(result: dict[str, Any]) -> str:
    """The figures as Markdown tables."""
    shown = {"identify": _identify_page, "normalize": _normalize_page}
    shown |= {"switches": _switches_page, "units": _units_page}
    return "\n".join(shown[name](result[name]) for name in shown if name in result)


def _identify_page(found: dict[str, Any]) -> str:
    heads = ["source", "language", "texts", "characters", "right", "wrong", "among ten"]
    heads.append("py3langid alone")
    lines = [
        [
            row["source"],
            row["language"],
            f"{row['texts']:,}",
            f"{row['median_characters']:.0f}",
            f"{row['right']:.2%}",
            ", ".join(f"{k} {n}" for k, n in row["guesses"].items() if k != row["language"]) or "-",
            f"{row['right_among']:.2%}",
            f"{row['py3langid_right']:.2%}",
        ]
        for row in found["rows"]
    ]
    speed = [
        [
            row["language"],
            f"{row['texts_per_s']:,.0f}",
            f"{row['cpu_s_per_1000']:.3f}",
            f"{row['first_cpu_s']:.2f}",
            f"{row['peak_bytes'] / 1e6:.0f} MB",
        ]
        for row in found["speed"]
    ]
    speed_heads = ["FLORES", "texts a s", "CPU s per 1,000", "first text, CPU s", "peak memory"]
    return table(heads, lines) + "\n" + table(speed_heads, speed)


def _normalize_page(found: dict[str, Any]) -> str:
    parts = []
    for row in found["rules"]:
        changed = row["changed"]
        names = [name for name in changed if changed[name]]
        lines = [[name, f"{changed[name]:,}"] for name in names] or [["none", "0"]]
        parts.append(table([f"`{row['files']}`: {row['rows']:,} rows", "changed"], lines))
    for row in found["pythainlp"]:
        sides = [("pythainlp", row["pythainlp_changes_ours"])]
        sides += [("ours", row["ours_changes_pythainlp"])]
        lines = [[side, name, f"{n:,}"] for side, steps in sides for name, n in steps.items()]
        head = f"still changed, of {row['rows']:,} rows of `{row['files']}`"
        parts.append(table(["by", "step", head], lines))
    return "\n".join(parts)


def _switches_page(found: list[dict[str, Any]]) -> str:
    heads = [
        "source",
        "language",
        "in language",
        "foreign letters",
        "with Latin",
        "switches a word",
    ]
    lines = [
        [
            row["source"],
            row["language"],
            f"{row['in_language']:.1%}",
            f"{row['foreign_share']:.3%}",
            f"{row['foreign_share_with_latin']:.2%}",
            f"{row['switches_per_word']:.3f}",
        ]
        for row in found
    ]
    return table(heads, lines)


def _units_page(found: list[dict[str, Any]]) -> str:
    heads = ["language", "unit", "engine", "MB a CPU s", "bytes each", "loading", "peak memory"]
    lines = [
        [
            row["language"],
            row["unit"],
            row["engine"],
            f"{row['mb_per_cpu_s']:.2f}",
            f"{row['bytes'] / row['number']:.1f}" if row["number"] else "",
            f"{row['loading_cpu_s']:.1f} s",
            f"{row['peak_bytes'] / 1e6:.0f} MB",
        ]
        for row in found
    ]
    return table(heads, lines)


def table(heads: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] * len(heads)
    return "".join("| " + " | ".join(line) + " |\n" for line in [heads, rule, *lines])
