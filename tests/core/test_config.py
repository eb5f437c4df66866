"""Strict reading: an unknown key names the nearest known one."""

import pytest

from endonym.core.config import Config
from endonym.core.errors import RecipeError


class Source(Config):
    path: str
    weight: float = 1.0


class Settings(Config):
    learning_rate: float = 0.1
    sources: list[Source] = []


def test_unknown_key_names_the_nearest():
    with pytest.raises(RecipeError) as caught:
        Settings.read({"learnig_rate": 1}, "r.toml: stages.cpt")
    assert "did you mean 'learning_rate'?" in str(caught.value)
    assert "r.toml: stages.cpt.learnig_rate" in str(caught.value)


def test_unknown_key_in_a_nested_table():
    with pytest.raises(RecipeError, match="did you mean 'weight'"):
        Settings.read({"sources": [{"path": "x", "wieght": 2}]}, "here")


def test_missing_and_wrong_values_say_where():
    with pytest.raises(RecipeError, match=r"sources\.0\.path"):
        Settings.read({"sources": [{}]}, "here")
    with pytest.raises(RecipeError, match="got: 'fast'"):
        Settings.read({"learning_rate": "fast"}, "here")


def test_frozen():
    with pytest.raises(Exception, match="frozen"):
        Settings().learning_rate = 2
