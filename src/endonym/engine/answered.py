"""Who answered in a stage, kept in its scratch for the record.

A run that was cut off may be taken up with another backend, so the record names all that were asked.
"""

from pathlib import Path

from endonym.engine.backends import Backend, Own

FILE = "answered_by"


def note(scratch: Path, backend: Backend) -> None:
    """The backend is about to be asked."""
    known = _known(scratch)
    if backend.by not in known:
        scratch.mkdir(parents=True, exist_ok=True)
        (scratch / FILE).write_text("\n".join([*known, backend.by]) + "\n", encoding="utf-8")


def answered_by(scratch: Path) -> dict[str, str]:
    """Figures: {"answered_by": ...} of a stage that a server answered in; {} where our engine did alone."""
    known = _known(scratch)
    return {"answered_by": ", ".join(known)} if set(known) - {Own.by} else {}


def _known(scratch: Path) -> list[str]:
    file = scratch / FILE
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
