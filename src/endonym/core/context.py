"""Where and with what a stage runs. Nothing here bears identity: no field of it enters an address."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from endonym.core.console import Console


@dataclass(frozen=True)
class Context:
    """The machine's side of a run.

    device:             "cpu", "cuda" or "cuda:N"
    threads:            compute threads of one process; None leaves the library's choice
    workers:            threads that encode text; None leaves the tokenizer library's choice
    rows_per_device:    rows of one forward pass; None lets the stage choose. Gradient accumulation
                        makes up the rest, so it changes speed and memory, not the result's address
    checkpoint_seconds: how often a training stage saves its state
    scratch:            a folder for this stage's unfinished work; it survives a kill
    data:               folders in which a relative data path of a recipe is looked up, in order
    """

    device: str = "cpu"
    threads: int | None = None
    workers: int | None = None
    rows_per_device: int | None = None
    checkpoint_seconds: float = 20.0
    scratch: Path = Path(".")
    data: tuple[Path, ...] = ()
    console: Console = field(default_factory=Console)

    def at(self, scratch: Path) -> "Context":
        """The same machine, another scratch folder."""
        return replace(self, scratch=scratch)
