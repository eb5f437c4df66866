"""What a long run shows: bars with rate and time left on a terminal, plain lines elsewhere.

Everything goes to stderr; stdout is kept for a command's answer, so that `--json` is one object.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Bar(Protocol):
    def advance(self, n: float = 1, **figures: float) -> None: ...


class _Rate(ProgressColumn):
    """Work done per second, in the bar's own unit."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields["unit"]
        return Text("" if speed is None else f"{_short(speed)} {unit}/s", style="cyan")


def _short(value: float) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:.1f}M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:.0f}k"
    return f"{value:.3g}"


class Console:
    """Progress and notes. `quiet` silences all but errors."""

    def __init__(self, *, quiet: bool = False, width: int | None = None):
        self.quiet = quiet
        self.rich = RichConsole(stderr=True, highlight=False, width=width)

    def note(self, text: str = "", style: str | None = None) -> None:
        """One line for the reader, above any bar."""
        if not self.quiet:
            self.rich.print(text, style=style, soft_wrap=True)

    def print(self, renderable: object) -> None:
        """A rich renderable (a table, a panel), unless quiet."""
        if not self.quiet:
            self.rich.print(renderable)

    @contextmanager
    def bar(self, description: str, total: float, unit: str = "step") -> Iterator[Bar]:
        """A bar over `total` units; plain lines about every ten seconds where there is no terminal."""
        if self.quiet:
            yield _Silent()
        elif not self.rich.is_terminal:
            yield _Lines(self, description, total, unit)
        else:
            columns = (
                TextColumn("  {task.description:<12}"),
                BarColumn(bar_width=28),
                TextColumn("{task.percentage:>3.0f} %"),
                _Rate(),
                TimeRemainingColumn(compact=True, elapsed_when_finished=True),
                TextColumn("[dim]{task.fields[figures]}"),
            )
            with Progress(*columns, console=self.rich, refresh_per_second=4) as progress:
                task = progress.add_task(description, total=total, figures="", unit=unit)
                yield _Live(progress, task)


class _Silent:
    def advance(self, n: float = 1, **figures: float) -> None:
        pass


class _Live:
    def __init__(self, progress: Progress, task: int):
        self._progress, self._task = progress, task

    def advance(self, n: float = 1, **figures: float) -> None:
        self._progress.update(self._task, advance=n)
        if figures:
            text = "  ".join(f"{name} {_short(value)}" for name, value in figures.items())
            self._progress.update(self._task, figures=text)


class _Lines:
    """Bars for logs: one line at most every ten seconds, and the last one."""

    every_seconds = 10.0

    def __init__(self, console: Console, description: str, total: float, unit: str):
        self._console, self._description, self._total, self._unit = (
            console,
            description,
            total,
            unit,
        )
        self._done, self._start, self._said = 0.0, time.monotonic(), time.monotonic()

    def advance(self, n: float = 1, **figures: float) -> None:
        self._done += n
        now = time.monotonic()
        finished = self._done >= self._total
        if not finished and now - self._said < self.every_seconds:
            return
        self._said = now
        rate = self._done / max(now - self._start, 1e-9)
        left = (self._total - self._done) / rate if rate > 0 else float("inf")
        shown = "  ".join(f"{name} {_short(value)}" for name, value in figures.items())
        self._console.note(
            f"  {self._description} {self._done:.0f}/{self._total:.0f} {self._unit}"
            f"  {_short(rate)} {self._unit}/s  {left:.0f} s left  {shown}"
        )
