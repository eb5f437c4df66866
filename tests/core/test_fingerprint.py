"""Addresses: what changes one and what must not."""

import pytest

from endonym.core.config import Config, ExternalPath
from endonym.core.errors import RecipeError
from endonym.core.fingerprint import address, canonical, difference, identity


class Inner(Config):
    width: int = 8
    rate: float = 0.1


class Settings(Config):
    steps: int
    inner: Inner = Inner()
    files: list[ExternalPath] = []
    path: ExternalPath | None = None
    names: dict[str, float] = {}


def digest(path):
    return "h(" + path.rsplit("/", 1)[-1] + ")"


def test_defaults_leave_no_trace():
    assert identity(Settings(steps=3), digest) == {"steps": 3}
    assert identity(Settings(steps=3, inner=Inner(width=8)), digest) == {"steps": 3}
    assert identity(Settings(steps=3, inner=Inner(rate=0.2)), digest) == {
        "steps": 3,
        "inner": {"rate": 0.2},
    }


def test_paths_are_known_by_their_content():
    one = identity(Settings(steps=1, files=["a/x.txt"], path="b/y"), digest)
    other = identity(Settings(steps=1, files=["elsewhere/x.txt"], path="y"), digest)
    assert (
        one
        == other
        == {
            "steps": 1,
            "files": [{"content": "h(x.txt)"}],
            "path": {"content": "h(y)"},
        }
    )


def test_address_is_a_function_of_its_ingredients():
    base = address("s", 1, {"a": 1, "b": 2}, {"in": "x"})
    assert base == address("s", 1, {"b": 2, "a": 1}, {"in": "x"})
    assert len(base) == 64
    others = {
        address("t", 1, {"a": 1, "b": 2}, {"in": "x"}),
        address("s", 2, {"a": 1, "b": 2}, {"in": "x"}),
        address("s", 1, {"a": 1, "b": 3}, {"in": "x"}),
        address("s", 1, {"a": 1, "b": 2}, {"in": "y"}),
    }
    assert base not in others and len(others) == 4


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), float("inf"), object(), {1: "a"}, b"x"])
def test_a_value_without_a_written_form_is_refused(value):
    with pytest.raises(RecipeError, match="no stable written form"):
        canonical({"key": [value]})


def test_difference_names_fields():
    old = {"config": {"lr": 0.1, "arch": {"width": 8}}, "inputs": {"model": "a"}}
    new = {"config": {"arch": {"width": 9}}, "inputs": {"model": "a"}}
    assert difference(old, new) == [("config.arch.width", 8, 9), ("config.lr", 0.1, None)]
