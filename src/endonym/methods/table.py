"""The methods by name: what a recipe's `objective` may say, and nowhere else.

A method is imported when it is used, so that naming one costs nothing.
"""

from collections.abc import Callable
from importlib import import_module

METHODS = {
    "nll": "endonym.methods.nll:nll",
    "bradley_terry": "endonym.methods.bradley_terry:bradley_terry",
    "kl": "endonym.methods.divergence:kl",
}


def method(name: str) -> Callable:
    """The function that a recipe calls `name`; a LookupError that names the known ones if none is.

    (Methods are leaves: they do not know core's errors. Who reads the recipe says where it stands.)
    """
    if name not in METHODS:
        raise LookupError(f"there is no objective {name!r}; known: {', '.join(sorted(METHODS))}")
    module, function = METHODS[name].split(":")
    return getattr(import_module(module), function)
