"""Charts as inline SVG: altair makes the Vega-Lite, vl-convert the SVG; nothing runs in the page.

Colours are written in their light form; the page's style sheet replaces each by its dark partner.
"""

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

# Colours of the page, (light, dark). SVG attributes carry the light one; the style sheet replaces
# each by its dark partner, which works where CSS variables in SVG attributes do not.
PALETTE = {
    "ink": ("#1b1f24", "#e8eaed"),
    "muted": ("#59626e", "#a3acb8"),
    "grid": ("#e1e5ea", "#343a42"),
    "accent": ("#0b5cad", "#74b7f5"),
    "band": ("#c4dbf2", "#1d4265"),
    "second": ("#a3540f", "#eda468"),
}
# Kinds of artifact in the lineage, in order of first appearance; a ninth kind starts over.
KIND_COLOURS = (
    ("#0b5cad", "#74b7f5"),
    ("#a3540f", "#eda468"),
    ("#1c7a4f", "#6fcf9d"),
    ("#8a3ba8", "#cf94e6"),
    ("#a8323e", "#f0919a"),
    ("#0f7580", "#68ccd6"),
    ("#766100", "#d8c05a"),
    ("#5b6470", "#aab3be"),
)


def svg(chart: Any, values: list[dict[str, Any]]) -> str:
    """A chart of `values` as inline SVG: its texts stay texts, in the page's font."""
    import altair as alt
    import vl_convert
    from markupsafe import Markup

    ink, muted, grid = (PALETTE[name][0] for name in ("ink", "muted", "grid"))
    styled = chart.properties(background="transparent").configure(
        font="sans-serif",
        view=alt.ViewConfig(stroke="transparent"),
        axis=alt.AxisConfig(
            labelColor=muted,
            titleColor=muted,
            titleFontWeight="normal",
            labelFontSize=11,
            titleFontSize=11,
            gridColor=grid,
            domainColor=grid,
            tickColor=grid,
        ),
        text=alt.MarkConfig(color=ink),
    )
    # altair checks each part as it is made; data that go in last are not copied and checked again.
    specification = styled.to_dict(validate=False) | {"datasets": {"run": values}}
    svg = vl_convert.vegalite_to_svg(specification)
    # Inside HTML the namespaces go without saying, and one page then names no address at all.
    for namespace in ("", ":xlink"):
        start = svg.find(f' xmlns{namespace}="')
        svg = svg[:start] + svg[svg.index('"', svg.index('"', start) + 1) + 1 :]
    return Markup(svg.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1))


def dots(known: list[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> str:
    """One column of the scoreboard: a point a row, its interval as a whisker."""
    import altair as alt

    wrapped = {
        row["label"]: "\n".join(wrap(row["label"], 20, break_long_words=False)) for row in rows
    }
    num_lines = max(label.count("\n") + 1 for label in wrapped.values())
    known = [{**cell, "row": wrapped[cell["row"]]} for cell in known]
    labels = alt.Axis(
        minExtent=126,
        maxExtent=126,
        labelLimit=120,
        labelExpr="split(datum.label, '\\n')",
        title=None,
        ticks=False,
        domain=False,
        labelColor=PALETTE["ink"][0],
    )
    y = alt.Y("row:N", sort=None, axis=labels, scale=alt.Scale(domain=list(wrapped.values())))
    scale = alt.Scale(zero=False, nice=False, padding=9)  # no point on the frame
    axis = alt.Axis(title=None, tickCount=4, labelFlush=False)
    colour = PALETTE["accent"][0]
    base = alt.Chart(alt.NamedData("run")).encode(y=y)
    x = alt.X("value:Q", scale=scale, axis=axis)
    whisker = base.mark_rule(color=colour, strokeWidth=2).encode(x=alt.X("low:Q"), x2="high:Q")
    point = base.mark_point(color=colour, fill=colour, opacity=1, size=55).encode(x=x)
    return svg(
        (whisker + point).properties(width=168, height=alt.Step(8 + 13 * max(num_lines, 2))),
        known,
    )


def loss_curve(has_norms: bool) -> Any:
    """Loss over steps, and below it the norm of the gradient where it was recorded."""
    import altair as alt

    accent, band, second = (PALETTE[name][0] for name in ("accent", "band", "second"))
    data = alt.Chart(alt.NamedData("run"))

    def x(is_lowest: bool) -> Any:
        axis = alt.Axis(
            title="step" if is_lowest else None,
            labels=is_lowest,
            tickCount=4,
            grid=False,
            labelFlush=False,
        )
        return alt.X("step:Q", axis=axis, scale=alt.Scale(nice=False))

    def y(field: str, title: str, ticks: int) -> Any:
        axis = alt.Axis(title=title, tickCount=ticks, minExtent=34, maxExtent=34)
        return alt.Y(f"{field}:Q", axis=axis, scale=alt.Scale(zero=False))

    across = x(not has_norms)
    spread = data.mark_area(color=band, opacity=1).encode(x=across, y=alt.Y("low:Q"), y2="high:Q")
    line = data.mark_line(color=accent, strokeWidth=1.5).encode(x=across, y=y("loss", "loss", 4))
    loss = (spread + line).properties(width=262, height=130)
    if not has_norms:
        return loss
    norm = data.mark_line(color=second, strokeWidth=1).encode(
        x=x(True), y=y("grad_norm", "grad norm", 2)
    )
    return alt.vconcat(loss, norm.properties(width=262, height=44), spacing=6)


def loss_comparison(labels: Sequence[str]) -> Any:
    """Loss over steps of several lines: each the mean of its runs, with the band of their range.

    The data are rows of line, step, loss, low, high; `labels` are the lines in the legend's order.
    """
    import altair as alt

    colours = [pair[0] for pair in KIND_COLOURS]
    scale = alt.Scale(
        domain=list(labels), range=[colours[n % len(colours)] for n in range(len(labels))]
    )
    legend = alt.Legend(
        title=None,
        orient="bottom",
        columns=3,
        symbolType="stroke",
        symbolOpacity=1,
        symbolSize=260,
        symbolStrokeWidth=3,
        labelColor=PALETTE["ink"][0],
        labelLimit=260,
        labelFontSize=12,
    )
    x = alt.X(
        "step:Q",
        axis=alt.Axis(title="step", tickCount=5, grid=False, labelFlush=False),
        scale=alt.Scale(nice=False),
    )
    y = alt.Y("loss:Q", axis=alt.Axis(title="loss", tickCount=5), scale=alt.Scale(zero=False))
    colour = alt.Color("line:N", scale=scale, legend=legend)
    data = alt.Chart(alt.NamedData("run")).encode(x=x, color=colour)
    band = data.mark_area(opacity=0.18).encode(y=alt.Y("low:Q"), y2="high:Q")
    line = data.mark_line(strokeWidth=1.75).encode(y=y)
    return (band + line).properties(width=640, height=280)


def probe_curves(names: Sequence[str]) -> Any:
    """What each probe said along a run: one small chart a figure, its points joined.

    The data are rows of name, step, value.
    """
    import altair as alt

    accent = PALETTE["accent"][0]
    data = alt.Chart(alt.NamedData("run"))
    parts = []
    for number, name in enumerate(names):
        is_lowest = number == len(names) - 1
        x = alt.X(
            "step:Q",
            axis=alt.Axis(
                title="step" if is_lowest else None, labels=is_lowest, tickCount=4, grid=False
            ),
            scale=alt.Scale(nice=False),
        )
        y = alt.Y(
            "value:Q",
            axis=alt.Axis(title=None, tickCount=3, minExtent=34, maxExtent=34),
            scale=alt.Scale(zero=False),
        )
        one = data.transform_filter(alt.datum.name == name).encode(x=x, y=y)
        line = one.mark_line(color=accent, strokeWidth=1.5)
        point = one.mark_point(color=accent, fill=accent, opacity=1, size=18)
        title = alt.TitleParams(
            name, anchor="start", fontSize=11, fontWeight="normal", color=PALETTE["ink"][0]
        )
        parts.append((line + point).properties(width=262, height=56, title=title))
    return alt.vconcat(*parts, spacing=6)


def needle_grid() -> Any:
    """Needles found by length of the text (across) and depth of the needle (down): darker is more.

    The data are rows of length, depth, found, each share also written as `said`.
    """
    import altair as alt

    low, high = PALETTE["grid"][0], PALETTE["accent"][0]
    axis = alt.Axis(grid=False, domain=False, ticks=False, labelAngle=0)
    data = alt.Chart(alt.NamedData("run")).encode(
        x=alt.X("length:O", title="tokens", axis=axis),
        y=alt.Y("depth:O", title="depth", axis=axis),
    )
    box = data.mark_rect(cornerRadius=3, stroke=low, strokeWidth=1).encode(
        color=alt.Color(
            "found:Q", scale=alt.Scale(domain=[0, 1], range=["#f6f8fa", high]), legend=None
        )
    )
    said = data.mark_text(fontSize=11).encode(
        text="said:N",
        color=alt.condition(
            alt.datum.found > 0.55, alt.value("#ffffff"), alt.value(PALETTE["ink"][0])
        ),
    )
    return (box + said).properties(width=alt.Step(46), height=alt.Step(26))
