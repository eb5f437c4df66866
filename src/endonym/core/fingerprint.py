"""Addresses: the same ingredients give the same address, on any machine.

    address = sha256( canonical( stage name, stage version, config without defaults,
                                 addresses of the inputs ) )

Canonical means JSON with sorted keys, no white space and Python's shortest float form. A value with
no single written form (a set, a NaN, an object) is refused rather than written somehow.
"""

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any, get_args

from endonym.core.config import Config, External
from endonym.core.errors import RecipeError

Digest = Callable[[str], str]
"""From a path as a recipe writes it to the sha256 of what lies there."""


def canonical(value: Any) -> str:
    """The one written form of plain data. RecipeError for a value that has none."""
    _refuse(value, "")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def address(stage: str, version: int, identity: dict[str, Any], inputs: dict[str, Any]) -> str:
    """The address, 64 hexadecimal digits, of what a stage makes from these literals and inputs.

    identity: identity(config); inputs: slot -> address, list of addresses or {label: address}.
    """
    body = {"stage": stage, "version": version, "config": identity, "inputs": inputs}
    return hashlib.sha256(canonical(body).encode()).hexdigest()


def identity(config: Config, digest: Digest) -> dict[str, Any]:
    """The literals of a config that bear identity: no defaults, content hashes instead of paths."""
    bearing = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if not field.is_required() and value == field.get_default(call_default_factory=True):
            continue
        external = any(isinstance(mark, External) for mark in field.metadata) or _holds_external(
            field.annotation
        )
        bearing[name] = _plain(value, digest, external)
    return bearing


def difference(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Field by field what changed between two plain values: (path, old, new); None stands for absent."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            row
            for key in sorted(old.keys() | new.keys())
            for row in difference(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            row
            for i, (before, after) in enumerate(zip(old, new))
            for row in difference(before, after, f"{path}[{i}]")
        ]
    return [] if old == new else [(path, old, new)]


def _plain(value: Any, digest: Digest, external: bool) -> Any:
    if isinstance(value, Config):
        return identity(value, digest)
    if isinstance(value, list | tuple):
        return [_plain(item, digest, external) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item, digest, external) for key, item in value.items()}
    if external and isinstance(value, str):
        return {"content": digest(value)}
    return value


def _holds_external(annotation: Any) -> bool:
    """True for list[ExternalPath], ExternalPath | None and the like."""
    if any(isinstance(mark, External) for mark in getattr(annotation, "__metadata__", ())):
        return True
    return any(_holds_external(argument) for argument in get_args(annotation))


def _refuse(value: Any, path: str) -> None:
    if value is None or isinstance(value, bool | int | str):
        return
    if isinstance(value, float) and math.isfinite(value):
        return
    if isinstance(value, list):
        for i, item in enumerate(value):
            _refuse(item, f"{path}[{i}]")
        return
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        for key, item in value.items():
            _refuse(item, f"{path}.{key}" if path else key)
        return
    raise RecipeError(
        "a value has no stable written form, so it cannot bear identity",
        where=path or "(top)",
        wanted="text, an integer, a finite number, true or false, a list, or a table with text keys",
        got=f"{type(value).__name__}: {value!r}",
        do="write it as one of these, or pass it through the context if it only says where to run",
    )
