"""Answers of a step of distillation, and the file that keeps those that were drawn.

    <folder>/000012.parquet     one row a drawn answer: slot, by, tokens, finish

A file is whole before anything is learnt from it: a run that was killed reads it there and draws nothing
twice.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from endonym.core.artifact import flush, machine_error
from endonym.rollouts.turns import Turn

CUT, UNNAMED = "length", "unnamed"
"""Ways in which an answer ends without its stop token: there was no more room, or a token came that the
other model has no name for."""


@dataclass(frozen=True)
class Taken:
    """A turn with its prompt and its answer, as the student's ids. finish: "stop", or as CUT says."""

    turn: Turn
    prompt: np.ndarray
    answer: np.ndarray
    finish: str


def path_of(folder: Path, step: int) -> Path:
    return folder / f"{step:06d}.parquet"


def write(file: Path, drawn: Sequence[tuple[Turn, list[int], str]]) -> None:
    """A step's drawn answers: slot, by, tokens, finish. Whole on the disk, or not there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("slot", pa.int64()), ("by", pa.string()), ("tokens", pa.list_(pa.uint32())),
         ("finish", pa.string())]
    )  # fmt: skip
    columns = [
        [turn.slot for turn, *_ in drawn],
        [turn.by for turn, *_ in drawn],
        [list(ids) for _, ids, _ in drawn],
        [finish for *_, finish in drawn],
    ]
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns, schema=schema), aside, compression="zstd")
        flush(aside)
        os.replace(aside, file)
        flush(file.parent)
    except OSError as error:
        raise machine_error(error, file) from error


def read(file: Path) -> dict[int, tuple[list[int], str]] | None:
    """slot -> (ids, finish), as write() kept them; None where there is no such file."""
    import pyarrow.parquet as pq

    if not file.is_file():
        return None
    rows = pq.read_table(file).to_pylist()
    return {row["slot"]: (row["tokens"], row["finish"]) for row in rows}
