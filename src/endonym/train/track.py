"""Figures sent to wandb or trackio as well, where the environment variable ENDONYM_TRACK names one.

Both keep their own settings and keys (WANDB_PROJECT, WANDB_MODE, TRACKIO_DIR ...). A run keeps its
name there over kills: its id lies in the scratch folder.
"""

import os
import uuid
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from endonym.core.config import nearest
from endonym.core.errors import MachineError, RecipeError

VARIABLE = "ENDONYM_TRACK"
TRACKERS = ("wandb", "trackio")

Track = tuple[Callable[[dict[str, Any], int], None], Callable[[], None]]
"""(log figures of a step, finish)."""


def tracker(scratch: Path, title: str) -> Track | None:
    """What the environment asks for; None where it asks for nothing.

    RecipeError for an unknown name, MachineError where the package is not installed.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    if name not in TRACKERS:
        raise RecipeError(
            f"no tracker is called {name!r}", where=VARIABLE, do=nearest(name, list(TRACKERS))
        )
    try:
        package = import_module(name)
    except ImportError:
        raise MachineError(
            f"{VARIABLE} asks for {name}, which is not installed",
            where=VARIABLE,
            do=f"pip install {name}, or unset {VARIABLE}",
        ) from None
    return {"wandb": _wandb, "trackio": _trackio}[name](package, scratch, title)


def _wandb(wandb: Any, scratch: Path, title: str) -> Track:
    project = os.environ.get("WANDB_PROJECT", "endonym")
    run = wandb.init(
        project=project, name=title, id=_run_id(scratch), resume="allow", dir=str(scratch)
    )
    # Steps of its own must only grow; a resumed run or a rollback repeats some.
    run.define_metric("*", step_metric="step")
    return lambda figures, step: run.log({**figures, "step": step}), run.finish


def _trackio(trackio: Any, scratch: Path, title: str) -> Track:
    project = os.environ.get("TRACKIO_PROJECT", "endonym")
    trackio.init(project=project, name=f"{title}-{_run_id(scratch)}", resume="allow")
    return lambda figures, step: trackio.log(figures, step=step), trackio.finish


def _run_id(scratch: Path) -> str:
    path = scratch / "tracking_id"
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:8])
    return path.read_text()
