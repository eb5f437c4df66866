"""The floors: every file imports only floors below its own (or its own), and the ground stays light.

The table is ARCHITECTURE's: a part is a folder of src/endonym (or one file), its number the floor.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "endonym"
FLOORS = {
    "core": 1,
    "methods": 1,
    "lang": 2,
    "model": 2,
    "tokenizer": 3,
    "rewards": 3,
    "data": 4,
    "tasks": 4,
    "engine": 4,
    "surgery": 4,
    "omni": 4,
    "train": 5,
    "rollouts": 5,
    "synth": 5,
    "serve": 5,
    "eval": 6,
    "stages": 7,
    "cli": 8,
}
# Neighbours on one floor that must not know each other.
APART = [
    ("core", "methods"),
    ("train", "tasks"),
    ("train", "engine"),
    ("train", "synth"),
    ("data", "engine"),
]
# Importing these must not import torch: --help and a run with nothing to do stay instant.
LIGHT = ["core", "lang", "tokenizer", "rewards", "data", "tasks", "synth", "stages", "cli"]

FILES = sorted(SOURCE.rglob("*.py"))


def part(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function, by absolute name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            if node.module == "endonym":
                found |= {f"endonym.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_run_down(path):
    own = part(path)
    if own == "__init__":
        return
    assert own in FLOORS, f"{own} stands on no floor"
    for module in imports(path):
        if not module.startswith("endonym."):
            continue
        other = module.split(".")[1]
        if other == own or other == "__version__":
            continue
        assert FLOORS[other] <= FLOORS[own], f"{own} (floor {FLOORS[own]}) imports {module}"
        assert other not in ("stages",) or own == "cli", f"only cli imports stages, not {own}"
        assert (own, other) not in APART and (other, own) not in APART, (
            f"{own} must not know {other}"
        )


def test_the_parts_have_no_circle():
    from graphlib import TopologicalSorter

    graph = {}
    for path in FILES:
        others = {
            m.split(".")[1] for m in imports(path) if m.startswith("endonym.") and m.count(".")
        }
        graph.setdefault(part(path), set()).update(others - {part(path), "__version__"})
    list(TopologicalSorter(graph).static_order())


def test_there_is_no_drawer():
    names = {path.stem for path in FILES} | {path.parent.name for path in FILES}
    assert not names & {"utils", "util", "common", "helpers", "misc", "base_utils"}


def test_light_parts_do_not_import_torch():
    modules = [
        "endonym."
        + ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for path in FILES
        if part(path) in LIGHT
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name + ' imports torch'\n"
        "    assert 'transformers' not in sys.modules, name + ' imports transformers'\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
