"""Rollouts on the disk: what was drawn in a batch, how it was judged, and where the prompts stand.

    <folder>/000012.parquet     one row a rollout; in the file's metadata the batch's own numbers

A file is written beside and renamed, before anything is learnt from it: a run that is killed and goes on
reads the batch again instead of drawing (and paying a judge for) another one.
"""

import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from endonym.core.artifact import flush
from endonym.core.errors import StoreError

KEY = b"endonym"


@dataclass
class Rollout:
    """One answer to one prompt.

    slot, sample:     number of the prompt in the run's order, and of the answer in its group
    label, id:        where the prompt comes from
    prompt, tokens:   ids, prompt and all that follows; mask: of `tokens` those that the model drew
    logprobs:         of `tokens` in the distribution they were drawn from
    finish, turns, messages: as in an Episode
    parts:            each reward by name, unweighted; None: it does not apply, nan: it failed
    reward:           their weighted sum; nan where it could not be judged
    advantage:        0 where the rollout has no weight
    learnt:           it has a weight in the loss
    kept:             its group is learnt from (else dynamic filtering has put it aside)
    old, reference:   log-probabilities of `tokens` in the trainer's forward pass and under the start
                      model, at the sampling temperature; empty where the run does not need them
    """

    slot: int
    sample: int
    label: str
    id: str
    prompt: list[int]
    tokens: list[int]
    mask: list[bool]
    logprobs: list[float]
    finish: str
    turns: int
    messages: list[dict[str, Any]]
    parts: dict[str, float | None] = field(default_factory=dict)
    reward: float = math.nan
    advantage: float = 0.0
    learnt: bool = False
    kept: bool = True
    old: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return math.isnan(self.reward)

    @property
    def is_truncated(self) -> bool:
        return self.finish != "stop"


@dataclass
class Batch:
    """What one sampling gave: number (from 0), cursor (the first slot that no batch has taken yet) and
    tries (how often was drawn)."""

    number: int
    cursor: int
    tries: int
    rollouts: list[Rollout]

    @property
    def kept(self) -> list[list[Rollout]]:
        """The groups that are learnt from, in the order of their prompts."""
        return groups([each for each in self.rollouts if each.kept])


def groups(rollouts: list[Rollout]) -> list[list[Rollout]]:
    """Rollouts by prompt, in the order of slots and samples."""
    found: dict[int, list[Rollout]] = {}
    for each in sorted(rollouts, key=lambda one: (one.slot, one.sample)):
        found.setdefault(each.slot, []).append(each)
    return list(found.values())


def path_of(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.parquet"


def write(folder: Path, batch: Batch, identity: str) -> None:
    """The batch's file in `folder`. identity: of the run whose weights drew it."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        name: [_told(name, getattr(each, name)) for each in batch.rollouts] for name in _COLUMNS
    }
    told = {"number": batch.number, "cursor": batch.cursor, "tries": batch.tries}
    schema = pa.schema(_COLUMNS, metadata={KEY: json.dumps(told | {"identity": identity}).encode()})
    path = path_of(folder, batch.number)
    aside = path.with_suffix(".partial")
    pq.write_table(pa.table(columns, schema=schema), aside, compression="zstd")
    flush(aside)
    aside.rename(path)


def read(folder: Path, number: int, identity: str) -> Batch:
    """The batch of this number; StoreError where another run has written it."""
    path = path_of(folder, number)
    table = pq.read_table(path)
    told = json.loads(table.schema.metadata[KEY])
    if told.pop("identity") != identity:
        raise StoreError(
            "these rollouts were drawn by another run",
            where=path,
            wanted="the same prompts, settings and start model",
            do="empty the scratch folder of this stage and run it again",
        )
    made = []
    for row in table.to_pylist():
        row["reward"] = math.nan if row["reward"] is None else row["reward"]
        row["parts"] = {
            name: math.nan if value == FAILED else value
            for name, value in json.loads(row["parts"]).items()
        }
        row["messages"] = json.loads(row["messages"])
        made.append(Rollout(**row))
    return Batch(rollouts=made, **told)


FAILED = "failed"
"""How a part that could not be judged is written: JSON has no nan."""

_FLOATS = ("logprobs", "old", "reference")

_COLUMNS: dict[str, pa.DataType] = {
    "slot": pa.int64(),
    "sample": pa.int32(),
    "label": pa.string(),
    "id": pa.string(),
    "prompt": pa.list_(pa.int32()),
    "tokens": pa.list_(pa.int32()),
    "mask": pa.list_(pa.bool_()),
    **{name: pa.list_(pa.float32()) for name in _FLOATS},
    "finish": pa.string(),
    "turns": pa.int32(),
    "messages": pa.string(),
    "parts": pa.string(),
    "reward": pa.float64(),
    "advantage": pa.float64(),
    "learnt": pa.bool_(),
    "kept": pa.bool_(),
}
assert set(_COLUMNS) == {each.name for each in fields(Rollout)}


def _told(name: str, value: Any) -> Any:
    if name in _FLOATS:
        return [float(each) for each in value]
    if name == "reward":
        return None if math.isnan(value) else value
    if name == "parts":
        value = {
            part: FAILED if each is not None and math.isnan(each) else each
            for part, each in value.items()
        }
    return json.dumps(value, ensure_ascii=False) if name in ("parts", "messages") else value
