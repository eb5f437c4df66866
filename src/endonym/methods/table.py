"""The methods by name: what a recipe's `objective` may say, and nowhere else.

A method is imported when it is used, so that naming one costs nothing.
"""

from collections.abc import Callable
from importlib import import_module

from endonym.core.config import nearest
from endonym.core.errors import RecipeError

METHODS = {
    "nll": "endonym.methods.nll:nll",
}


def method(name: str) -> Callable:
    """The function that a recipe calls `name`."""
    if name not in METHODS:
        raise RecipeError(
            f"there is no objective {name!r}", where="objective", do=nearest(name, list(METHODS))
        )
    module, function = METHODS[name].split(":")
    return getattr(import_module(module), function)
