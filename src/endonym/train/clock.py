"""When the next checkpoint is due by the clock."""

import time

SAVE_SHARE = 0.05
"""Saving may take at most this share of the time, however short the interval asked for."""


class SaveClock:
    """Due after `every` seconds, but never for more than SAVE_SHARE of the time.

    An interval of 0 saves after every step, whatever it costs.
    """

    def __init__(self, every: float):
        self._every, self.costs = every, []
        self._last = time.monotonic()

    def due(self) -> bool:
        cost = self.costs[-1] if self.costs and self._every else 0.0
        return time.monotonic() - self._last >= max(self._every, cost / SAVE_SHARE)

    def saved(self, cost: float) -> None:
        self.costs.append(cost)
        self._last = time.monotonic()
