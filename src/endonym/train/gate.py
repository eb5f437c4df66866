"""Gates: what probed figures decide about a run's length and its end.

    stop     judged at every measurement after the first step; once kept, the run ends there
    extend   judged after the last step; not kept: extend_steps more at the last rate, at most `times`.
             K-EXAONE (arXiv:2601.01739) and EXAONE 4.0 (arXiv:2507.11407) extend the context until the
             needle test gives "green light"; neither gives a threshold or a limit
    fail     judged after the last step, with `watch` at every measurement, the one before the first
             step too: an error. Solar Open and K-EXAONE watch that what was known from before a stage
             stays known

Where several extend, the longest extension is taken. A bound that is `relative` is multiplied with the
figure's value before the first step. A gate that still extends in vain leaves the run as it is and its
figures say so; a `fail` gate on the same figure makes that an error.
"""

from typing import Any

from endonym.core.config import nearest
from endonym.core.errors import RecipeError
from endonym.train.config import Gate, TrainConfig


class Gates:
    """The gates of one run, and what they remember (state(), JSON, for Progress.extra)."""

    def __init__(self, config: TrainConfig, final_rate: float):
        self._steps, self._gates = config.steps, config.gates
        gates = config.gates
        if final_rate == 0 and any(gate.action == "extend" for gate in gates):
            raise RecipeError(
                "a run whose rate ends at 0 learns nothing when it is extended",
                where="final_share",
                wanted="a share above 0 beside a gate that extends",
                got=0,
                do="set final_share, 0.1 say",
            )
        self._first: dict[str, float] = {}
        self._latest: dict[str, float] = {}
        self._extended = [0] * len(gates)
        self.more = 0
        self.ended: int | None = None

    @property
    def last(self) -> int:
        """Steps of the run, as far as the gates have decided."""
        return self._steps + self.more if self.ended is None else self.ended

    def measured(self, figures: dict[str, float], step: int) -> None:
        """Takes in what was measured after `step` steps. RecipeError for a gate on no figure of them."""
        if step == 0:
            self._first = dict(figures)
            self._refuse()
        self._latest |= figures
        stops = [gate for gate in self._gates if gate.action == "stop" and gate.figure in figures]
        if step and self.ended is None and any(self._keeps(gate) for gate in stops):
            self.ended = step

    def watch(self) -> None:
        """RecipeError where a watched bound is not kept now."""
        self._fail([gate for gate in self._gates if gate.action == "fail" and gate.watch])

    def extension(self) -> int:
        """Asked after the last step: how many more are to follow. RecipeError where a bound that must
        be kept at the end is not."""
        if self.ended is None:
            wanting = [
                number
                for number, gate in enumerate(self._gates)
                if gate.action == "extend"
                and self._extended[number] < gate.times
                and not self._keeps(gate)
            ]
            if wanting:
                for number in wanting:
                    self._extended[number] += 1
                longest = max(self._gates[number].extend_steps for number in wanting)
                self.more += longest
                return longest
        self._fail([gate for gate in self._gates if gate.action == "fail"])
        return 0

    def figures(self) -> dict[str, Any]:
        """For the figures of the run: what the probes said before and after, and whether gates are kept."""
        told: dict[str, Any] = {}
        if self._latest:
            told["probes"] = {
                name: {"before": self._first.get(name), "after": value}
                for name, value in self._latest.items()
            }
        if self._gates:
            told["gates"] = {
                f"{gate.action}: {gate.figure} {self._bound(gate)}": self._keeps(gate)
                for gate in self._gates
            }
        return told

    def state(self) -> dict[str, Any]:
        return {
            "first": dict(self._first),
            "latest": dict(self._latest),
            "extended": list(self._extended),
            "more": self.more,
            "ended": self.ended,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._first, self._latest = dict(state["first"]), dict(state["latest"])
        self._extended, self.more = list(state["extended"]), state["more"]
        self.ended = state["ended"]

    def _keeps(self, gate: Gate) -> bool:
        value, unit = self._latest[gate.figure], self._unit(gate)
        return (gate.at_least is None or value >= gate.at_least * unit) and (
            gate.at_most is None or value <= gate.at_most * unit
        )

    def _unit(self, gate: Gate) -> float:
        return self._first[gate.figure] if gate.relative else 1.0

    def _bound(self, gate: Gate) -> str:
        bounds = ((">=", gate.at_least), ("<=", gate.at_most))
        unit = f" x {self._unit(gate):.4g}" if gate.relative else ""
        return " and ".join(f"{sign} {x:g}{unit}" for sign, x in bounds if x is not None)

    def _fail(self, gates: list[Gate]) -> None:
        for gate in gates:
            if not self._keeps(gate):
                raise RecipeError(
                    f"the run does not keep its bound on {gate.figure}",
                    where="gates",
                    wanted=self._bound(gate),
                    got=self._latest[gate.figure],
                    do="mix in more of what was known before, lower learning_rate, or change the bound",
                )

    def _refuse(self) -> None:
        for gate in self._gates:
            if gate.figure not in self._first:
                raise RecipeError(
                    f"no probe gives the figure {gate.figure!r}",
                    where="gates",
                    do=nearest(gate.figure, list(self._first))
                    if self._first
                    else "give this stage a probe; it has none",
                )
            if gate.relative and self._first[gate.figure] <= 0:
                raise RecipeError(
                    "a relative bound needs a figure above 0 at the start",
                    where=f"gates: {gate.figure}",
                    got=self._first[gate.figure],
                    do="give the bound itself, without relative",
                )
