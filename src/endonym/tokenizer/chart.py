"""Tokenizers beside each other as a picture: a column a corpus, a row a tokenizer, the bar's figure said.

Static SVG (altair makes the Vega-Lite, vl-convert draws it): no script, nothing fetched.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from endonym.core.artifact import write_atomic
from endonym.core.charts import PALETTE
from endonym.core.errors import RecipeError

ENDINGS = (".svg", ".png", ".html")
WIDTH, STEP, COLUMNS = 190, 26, 4
"""Pixels of a column's bars and of a row; columns beside each other before the next line."""


def write(path: Path, columns: Sequence[Mapping[str, Any]], title: str) -> None:
    """Writes a chart of `columns` as .svg, .png or .html.

    A column: {"title", "subtitle", "format" (d3, such as ".2f"), "rule" (a value at which a line is
    drawn, or None), "values": {tokenizer: number}}. Rows are sorted by the first column, the
    smallest number first; a tokenizer that a column lacks has an empty place there.
    """
    if path.suffix not in ENDINGS:
        raise RecipeError("not a kind of chart", where=path, wanted=", ".join(ENDINGS))
    import vl_convert

    specification = _chart(columns, title).to_dict()
    if path.suffix == ".png":
        return write_atomic(path, vl_convert.vegalite_to_png(specification, scale=2))
    svg = vl_convert.vegalite_to_svg(specification)
    if path.suffix == ".html":
        head = f'<!doctype html><meta charset="utf-8"><title>{escape(title)}</title>'
        svg = f"{head}<style>svg{{max-width:100%;height:auto}}</style>{svg}\n"
    write_atomic(path, svg.encode())


def _chart(columns: Sequence[Mapping[str, Any]], title: str) -> Any:
    import altair as alt

    order = sorted(columns[0]["values"], key=columns[0]["values"].get)
    order += [n for column in columns[1:] for n in column["values"] if n not in order]
    ink, muted, accent, band = (PALETTE[name][0] for name in ("ink", "muted", "accent", "band"))
    parts = []
    for at, column in enumerate(columns):
        best = min(column["values"].values())
        rows = [
            {"tokenizer": name, "value": value, "best": value == best}
            for name, value in column["values"].items()
        ]
        labels = alt.Axis(
            title=None,
            labels=at % COLUMNS == 0,
            ticks=False,
            domain=False,
            labelLimit=260,
            labelPadding=8,
            labelColor=ink,
        )
        room = max(column["values"].values()) * 1.25  # for the figure after the longest bar
        base = alt.Chart(alt.Data(values=rows)).encode(
            y=alt.Y("tokenizer:N", sort=order, axis=labels, scale=alt.Scale(domain=order)),
            x=alt.X("value:Q", axis=None, scale=alt.Scale(domain=[0, room], nice=False)),
        )
        colour = alt.condition("datum.best", alt.value(accent), alt.value(band))
        bars = base.mark_bar(height=STEP - 9).encode(color=colour)
        figures = base.mark_text(align="left", dx=4, fontSize=13, color=ink).encode(
            text=alt.Text("value:Q", format=column["format"])
        )
        layers = [bars, figures]
        if column.get("rule") is not None:
            line = alt.Chart(alt.Data(values=[{"value": column["rule"]}]))
            layers.append(line.mark_rule(color=muted, strokeDash=[3, 3]).encode(x="value:Q"))
        heading = alt.TitleParams(
            column["title"],
            subtitle=column["subtitle"],
            anchor="start",
            frame="group",
            fontSize=14,
            subtitleFontSize=12,
            subtitleColor=muted,
            color=ink,
            offset=8,
        )
        parts.append(
            alt.layer(*layers).properties(width=WIDTH, height=STEP * len(order), title=heading)
        )
    return (
        alt.concat(*parts, columns=COLUMNS, spacing=26)
        .properties(
            title=alt.TitleParams(title, anchor="start", fontSize=18, color=ink, offset=14),
            background="white",
            padding=16,
        )
        .configure(
            font="Noto Sans Thai, Noto Sans KR, Noto Sans, Arial, sans-serif",
            view=alt.ViewConfig(stroke="transparent"),
            axis=alt.AxisConfig(labelFontSize=13),
        )
    )
