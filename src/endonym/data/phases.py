"""The settings of a run in phases; data/phased.py makes the rows. They bear identity."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from endonym.core.config import Config


class Threshold(Config):
    """Which sequences a stored score lets through. Each condition that is given must hold."""

    at_least: float | None = None
    at_most: float | None = None
    top: float | None = Field(default=None, gt=0, le=1)
    """The share kept, best first: 0.35 keeps the best 35 %. It is counted in sequences among all of the
    group that have the score, whatever other conditions do; of equal scores at the border some are
    drawn by a hash of their numbers, so that the share is kept whatever the ties."""
    per: Literal["language", "all", "source"] = "language"
    """The group in which `top` is counted: a language through all stores of the run, everything, or
    each store. (A scorer's levels differ between languages: Solar Open, FineWeb2.)"""
    missing: Literal["keep", "drop"] = "drop"
    """What becomes of sequences without the score."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.at_least is None and self.at_most is None and self.top is None:
            raise ValueError("a threshold needs at_least, at_most or top")
        return self


class Sampling(Config):
    """How shares come out of the mixture and the sizes (data/sampling.py)."""

    by: Literal["weights", "size", "temperature", "unimax"] = "weights"
    """weights: the mixture's numbers. The others take sizes after thresholds, counted in rows, which
    packing makes alike; the mixture then only names what takes part, and its numbers must be alike."""
    temperature: float = Field(default=3.33, gt=0)
    """T of by = "temperature". mT5: 3.33 (an exponent of 0.3)."""
    over: Literal["source", "language"] = "source"
    """What the mixture names: stores, or the languages of their sequences through all stores. The
    stores that hold a language give to it by their tokens in it."""
    max_epochs: float | dict[str, float] | None = None
    """The most times anything named is seen within the phase, for all or by name; what exceeds it goes
    to the others by weight. UniMax needs one number."""

    @model_validator(mode="after")
    def _unimax_is_bounded(self) -> Self:
        if self.by == "unimax" and not isinstance(self.max_epochs, float):
            raise ValueError('by = "unimax" needs max_epochs, one number')
        caps = self.max_epochs.values() if isinstance(self.max_epochs, dict) else [self.max_epochs]
        if any(cap is not None and not cap > 0 for cap in caps):
            raise ValueError("max_epochs must be above 0")
        return self


class Phase(Config):
    """A stretch of a run. What is None is the run's own setting."""

    name: str = ""
    """Shown to readers; empty: the phase's number."""
    steps: int | None = Field(default=None, gt=0)
    tokens: float | None = Field(default=None, gt=0)
    """Instead of steps: so many tokens, rows counted as full."""
    mixture: dict[str, float] = {}
    """Label of a store (or language, sampling.over) -> its share of the tokens. Empty: all, by size.
    (In a run of one phase without sampling and thresholds, of the rows: data/loader.py.) What was really
    drawn is measured and reported."""
    sampling: Sampling | None = None
    thresholds: dict[str, Threshold] = {}
    """Name of a score -> what it lets through; all must."""
    row_length: int | None = Field(default=None, gt=1)
    rows_per_step: int | None = Field(default=None, gt=0)
    packed: bool = True
    never_truncate: bool = False
    """Refuse sequences longer than a row."""
    learning_rate: float | None = Field(default=None, gt=0)
    schedule: Literal["cosine", "wsd", "linear", "constant"] | None = None
    warmup: float | None = Field(default=None, ge=0)
    decay: float | None = Field(default=None, ge=0)
    final_share: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _has_one_length(self) -> Self:
        if (self.steps is None) == (self.tokens is None):
            raise ValueError("a phase is so many steps or so many tokens long, one of the two")
        return self

    def num_steps(self, rows_per_step: int, row_length: int) -> int:
        """The phase's steps, at least its tokens; the arguments are the run's own settings."""
        if self.steps is not None:
            return self.steps
        each = (self.rows_per_step or rows_per_step) * (self.row_length or row_length)
        return math.ceil(self.tokens / each)
