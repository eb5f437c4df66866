"""A run in phases: each with its own mixture, thresholds on stored scores, and length of rows.

    phased(stores, phases) -> Phased: one Loader a phase, one behind the other

The token stores are the same for all phases. What changes between phases is which of their sequences
are drawn, how often, and in how long rows; nothing is written again (Solar Open, arXiv:2601.07022:
filters act in the data loader). Rehearsal and replay are sources like others.

A source that an earlier phase has drawn from goes on where it stopped, unseen rows first, if its rows
are the same there: same store and label, length of rows, way of packing and sequences let through.
Rows of another length or after other thresholds are other rows, and begin with an epoch of their own.
There is no state to save in this either: the rows that a phase draws from a source are a function of
its mixture and steps, so the next phase's Loader is told their number (Loader, after).
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from endonym.core.errors import RecipeError
from endonym.data.loader import Loader, add, shared, totals
from endonym.data.phases import Phase
from endonym.data.selection import Languages, Maker, kept, mixed, plain
from endonym.data.store import TokenStore

if TYPE_CHECKING:
    from endonym.methods.batch import Rows


class Phased:
    """Loaders of several phases as one, by the step of the whole run; made by phased()."""

    def __init__(
        self,
        loaders: Sequence[Loader],
        lengths: Sequence[int],
        names: Sequence[str],
        passed: Sequence[dict[str, dict[str, int]]],
    ):
        self.loaders, self.lengths, self.phases = list(loaders), list(lengths), list(names)
        self._passed = list(passed)
        self.steps = sum(self.lengths)
        self._begins = np.cumsum([0, *self.lengths])[:-1].tolist()
        parts = [f"{steps} {loader.identity}" for steps, loader in zip(lengths, loaders)]
        self.identity = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        """Changes when any row of any phase would."""

    def at(self, step: int) -> tuple[int, int]:
        """(phase, step within it). Steps beyond the end belong to the last phase, prolonged."""
        phase = int(np.searchsorted(self._begins, step, side="right")) - 1
        return phase, step - self._begins[phase]

    def rows(self, step: int, part: tuple[int, int] = (0, 1)) -> "Rows":
        """The rows of a step, as Loader.rows."""
        phase, within = self.at(step)
        return self.loaders[phase].rows(within, part)

    def sequences(self, step: int) -> list[list[tuple[int, int, int]]]:
        """For each row its pieces: (place of the store in the phase's loader, sequence, first token)."""
        phase, within = self.at(step)
        return self.loaders[phase].sequences(within)

    def names(self, step: int) -> list[str]:
        phase, within = self.at(step)
        return self.loaders[phase].names(within)

    def state(self, step: int) -> dict[str, float]:
        """Before step `step`: "phase", from 1, and "epoch/NAME" of the phase's sources."""
        phase, within = self.at(step)
        return {"phase": float(phase + 1), **self.loaders[phase].state(within)}

    def measured(self, steps: int) -> dict[str, Any]:
        """As Loader.measured, for all phases together and, under "phases", each alone with its steps.

        A source's `asked` and `epochs` are a phase's; over the whole run it has none.
        """
        sources, languages, origins, phases = {}, {}, {}, {}
        for name, loader, length in self._drawn(steps):
            found = phases[name] = {"steps": length, **loader.measured(length)}
            for key, into in (("sources", sources), ("languages", languages), ("origins", origins)):
                for label, row in found[key].items():
                    counted = [each for each in ("rows", "tokens", "targets") if each in row]
                    add(into, label, {each: row[each] for each in counted})
        whole = totals(sources.values())
        return {**whole, **shared(sources, languages, origins), "phases": phases}

    def kept(self) -> dict[str, dict[str, dict[str, int]]]:
        """Phase -> language -> {"sequences": of all stores, "kept": let through}; {} without thresholds."""
        return dict(zip(self.phases, self._passed))

    def report(self, steps: int) -> list[dict[str, Any]]:
        """Loader.report of each phase; where there are several, "source" is "PHASE/SOURCE"."""
        several = len(self.loaders) > 1
        return [
            row | ({"source": f"{name}/{row['source']}"} if several else {})
            for name, loader, length in self._drawn(steps)
            for row in loader.report(length)
        ]

    def _drawn(self, steps: int) -> list[tuple[str, Loader, int]]:
        """(name, loader, steps) of the phases that the first `steps` steps reach."""
        ends = [*self._begins[1:], max(steps, self.steps)]
        return [
            (name, loader, min(steps, end) - begin)
            for name, loader, begin, end in zip(self.phases, self.loaders, self._begins, ends)
            if steps > begin
        ]


def phased(
    stores: dict[str, TokenStore],
    phases: Sequence[Phase],
    *,
    rows_per_step: int,
    row_length: int,
    seed: int = 0,
) -> Phased:
    """The loader of a run in phases. stores: by the labels that mixtures name.

    rows_per_step, row_length: of phases that have none of their own. Errors name the phase: a
    mixture that names no store or no language, a score that no store has, thresholds or lengths that
    leave nothing of something named, a sequence too long for never_truncate, too few tokens for
    the most epochs.
    """
    names = [phase.name or str(number) for number, phase in enumerate(phases, start=1)]
    if len(set(names)) < len(names) or not names:
        raise RecipeError("phases need names of their own", where="phases", got=names)
    languages, known = Languages(stores), {}
    done: dict[tuple[str, str], int] = {}  # rows drawn so far, by (name, identity of the rows)
    loaders, lengths, passed = [], [], []
    for name, phase in zip(names, phases):
        where = f"phase {name}"
        batch, longest = phase.rows_per_step or rows_per_step, phase.row_length or row_length
        steps = phase.num_steps(rows_per_step, row_length)
        masks = kept(phase, stores, languages, where)
        make = Maker(phase, stores, longest, masks, known, where)
        settings = {"rows_per_step": batch, "row_length": longest, "seed": seed}
        if len(phases) == 1 and phase.sampling is None and not phase.thresholds:
            # exactly the Loader of the same settings, in the same order
            loader = Loader(*plain(phase, stores, make, where), **settings)
        else:
            sources, weights = mixed(phase, stores, languages, make, batch * steps, where)
            keys = [(source.name, source.identity) for source in sources]
            after = [done.get(key, 0) for key in keys]
            loader = Loader(sources, weights, **settings, after=after)
            for key, drawn in zip(keys, loader.mixture.drawn(batch * steps)):
                done[key] = done.get(key, 0) + drawn
        loaders.append(loader)
        lengths.append(steps)
        passed.append(languages.counts(masks) if phase.thresholds else {})
    return Phased(loaders, lengths, names, passed)
