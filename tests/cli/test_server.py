"""`endonym run --server`: the context says it, and a command that is missing is told before anything runs."""

import pytest
from typer.testing import CliRunner

from endonym.cli import app
from endonym.core import runner
from endonym.core.errors import MachineError

RECIPE = """
[stages.text]
use = "documents"
sources = [{ builtin = "almanac", language = "en", amount = 3 }]
"""


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Contexts that a run was begun with; it goes no further."""
    (tmp_path / "recipe.toml").write_text(RECIPE)
    found = []

    def run(recipe, store, lookup, context, until):
        found.append(context)
        raise SystemExit(0)

    monkeypatch.setattr(runner, "run", run)
    base = ["run", str(tmp_path / "recipe.toml"), "--store", str(tmp_path / "store"), "-q"]
    call = lambda *options: CliRunner().invoke(app, [*base, *options])  # noqa: E731
    return call, found


def test_the_context_says_it(started, monkeypatch):
    call, found = started
    monkeypatch.setenv("ENDONYM_SERVER", "serve {model} {name} {port}")
    assert call().exit_code == call("--server").exit_code == 0
    assert [context.server for context in found] == [False, True]


@pytest.mark.parametrize("command", [None, "serve {model} {name}"])
def test_a_command_that_cannot_be_used_is_told_first(started, monkeypatch, command):
    call, found = started
    if command is None:
        monkeypatch.delenv("ENDONYM_SERVER", raising=False)
    else:
        monkeypatch.setenv("ENDONYM_SERVER", command)
    error = call("--server").exception
    assert isinstance(error, MachineError) and error.where == "ENDONYM_SERVER" and not found
