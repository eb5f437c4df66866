"""The scoreboard: systems by figures, with intervals; one structure for the command, JSON and report.

    {"columns": [{"key": "th_bpb", "title": "Thai", "better": "lower", "unit": "bits/byte"}],
     "rows":    [{"label": "base", "figures": {"th_bpb": {"value": 2.1, "low": 2.0, "high": 2.2, "n": 80}}}]}

Shares are stored as 0..1 with the unit "%" and shown times a hundred. No torch here.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from endonym.core.errors import DataError


@dataclass(frozen=True)
class Column:
    """key: stable, for machines; title: for readers; better: which way is up; difference: shown with
    its sign and judged against 0, not against the other rows."""

    key: str
    title: str
    better: Literal["higher", "lower"] = "higher"
    unit: str = ""
    difference: bool = False


@dataclass(frozen=True)
class Figure:
    """A value, its interval where there is one, and the number of items behind it."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class Row:
    label: str
    figures: dict[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True)
class Scoreboard:
    columns: list[Column]
    rows: list[Row]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; keys are stable."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """What to_dict gave. DataError where it is something else."""
        try:
            columns = [Column(**column) for column in value["columns"]]
            rows = [
                Row(row["label"], {key: Figure(**figure) for key, figure in row["figures"].items()})
                for row in value["rows"]
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                "this is no scoreboard",
                wanted="columns of key, title, better, unit; rows of label, figures",
                got=error,
            ) from None
        keys = {column.key for column in columns}
        for row in rows:
            if unknown := row.figures.keys() - keys:
                raise DataError(
                    "a row has a figure without a column", where=row.label, got=sorted(unknown)
                )
        return cls(columns, rows)

    def best(self, key: str) -> float | None:
        """The best value of a column; None where no row is better than another."""
        column = next(column for column in self.columns if column.key == key)
        values = {row.figures[key].value for row in self.rows if key in row.figures}
        choose = max if column.better == "higher" else min
        return choose(values) if len(values) > 1 else None

    def table(self, title: str | None = None) -> Table:
        """For the terminal: best value of a column bold, and every difference whose interval is clear of 0;
        half the interval dim, arrows for the better way."""
        table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
        table.add_column("")
        for column in self.columns:
            arrow = "↑" if column.better == "higher" else "↓"
            unit = " " + column.unit.replace("/", " / ") if column.unit else ""  # may fold there
            table.add_column(
                f"{column.title}\n[dim]{arrow}{unit}[/dim]", justify="right", overflow="fold"
            )
        for row in self.rows:
            table.add_row(row.label, *(self._cell(row, column) for column in self.columns))
        return table

    def _cell(self, row: Row, column: Column) -> Text:
        figure = row.figures.get(column.key)
        if figure is None:
            return Text("–", style="dim")
        if column.difference:
            stands_out = figure.low is not None and (figure.low > 0 or figure.high < 0)
        else:
            stands_out = figure.value == self.best(column.key)
        told = shown(figure.value, column.unit)
        told = f"+{told}" if column.difference and figure.value > 0 else told
        text = Text(told, style="bold" if stands_out else "")
        if figure.low is not None and figure.high is not None:
            half = (figure.high - figure.low) / 2
            text.append(f"\n±{shown(half, column.unit)}", style="not bold dim")
        return text


def shown(value: float, unit: str) -> str:
    """A value as a reader wants it: shares in per cent with one decimal, others with three digits."""
    if unit == "%":
        return f"{100 * value:.1f}"
    if value != 0 and abs(value) < 1:
        return f"{value:.3f}"
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
