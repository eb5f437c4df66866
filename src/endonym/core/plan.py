"""From a recipe to steps with addresses: what is there, what must be made, and why.

All addresses follow from the recipe and the bytes of the outside files alone, so a whole run is
known before any of it starts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endonym.core.artifact import Artifact
from endonym.core.config import Config, External, nearest
from endonym.core.errors import DataError, RecipeError
from endonym.core.fingerprint import address, difference, identity
from endonym.core.recipe import Node, Recipe
from endonym.core.stage import Slot, Stage
from endonym.core.store import Store, matches

Lookup = Callable[[str], Stage]


@dataclass(frozen=True)
class Step:
    """A node with all that is known of it before it runs.

    inputs: slot -> name, or {label: name}, of the steps it takes
    found:  the finished artifact, if there is one
    """

    node: Node
    stage: Stage
    config: Config
    inputs: dict[str, Any]
    identity: dict[str, Any]
    input_addresses: dict[str, Any]
    address: str
    found: Artifact | None

    @property
    def name(self) -> str:
        return self.node.name


def plan(
    recipe: Recipe,
    store: Store,
    lookup: Lookup,
    data: tuple[Path, ...] = (),
    until: str | None = None,
    absent: dict[str, list[str]] | None = None,
) -> dict[str, Step]:
    """Every step that the recipe (or one stage of it) needs, by name, in order.

    lookup: from a `use` to its Stage. data: folders for relative data paths. absent: filled with the
    data paths of each stage that are not there, instead of raising: such a stage, and what depends on
    it, has no true address, and nothing is found for it.
    RecipeError for a setting or a plug that does not fit, DataError for a missing file,
    StoreError for a damaged artifact.
    """
    steps: dict[str, Step] = {}
    for node in recipe.needed_for(until):
        steps[node.name] = _step(node, steps, store, lookup, data, absent)
    return steps


def locate(path: str, data: tuple[Path, ...]) -> Path:
    """The file, folder or pattern that a recipe's data path means: as it is, else below one of `data`.

    A pattern ("news/*.jsonl.gz") stays one; it means the files that it matches.
    """
    written = Path(path).expanduser()
    tried = (
        [written] if written.is_absolute() else [written, *(folder / written for folder in data)]
    )
    for candidate in tried:
        if candidate.exists() or matches(candidate):
            return candidate
    names = [p.name for p in tried[-1].parent.iterdir()] if tried[-1].parent.is_dir() else []
    raise DataError(
        "a data file is missing",
        where=path,
        wanted=f"one of: {', '.join(map(str, tried))}",
        got=f"nothing there ({nearest(written.name, names)})" if names else "nothing there",
        do="correct the path, or name the folder that holds it with --data DIR",
    )


def why(step: Step, store: Store) -> tuple[Artifact | None, list[tuple[str, Any, Any]]]:
    """The stored artifact nearest to a step and the fields that differ: (path, stored, wanted).

    Nearest is the one of the same stage with the fewest differing fields; the newest of equals.
    """
    wanted = _account(step.stage.version, step.identity, step.input_addresses)
    best: tuple[Artifact | None, list[tuple[str, Any, Any]]] = (None, [])
    for artifact in sorted(store.all(step.stage.name), key=lambda a: a.record["created"]):
        record = artifact.record
        rows = difference(_account(record["version"], record["config"], record["inputs"]), wanted)
        if best[0] is None or len(rows) <= len(best[1]):
            best = (artifact, rows)
    return best


def missed(step: Step, steps: dict[str, Step], store: Store) -> str:
    """One short line: why a step has to run."""
    nearest_one, rows = why(step, store)
    if nearest_one is None:
        return "never made"
    words = []
    for path, old, new in rows[:2]:
        field = path.removeprefix("config.")
        if path.startswith("inputs."):
            words.append(f"{path.split('.')[1]} changed")
        elif isinstance(old, dict | list) or isinstance(new, dict | list):
            words.append(f"{field} changed")
        else:
            words.append(f"{field} {_brief(old)} -> {_brief(new)}")
    more = f", {len(rows) - 2} more" if len(rows) > 2 else ""
    return ", ".join(dict.fromkeys(words)) + more


def _brief(value: Any) -> str:
    text = "default" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _account(version: int, literals: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    return {"version": version, "config": literals, "inputs": inputs}


def _step(
    node: Node,
    steps: dict[str, Step],
    store: Store,
    lookup: Lookup,
    data: tuple[Path, ...],
    absent: dict[str, list[str]] | None = None,
) -> Step:
    stage = lookup(node.use)
    settings = {k: v for k, v in node.settings.items() if k not in stage.slots}
    for key, value in settings.items():
        if isinstance(value, str) and value.startswith("@"):
            raise RecipeError(
                f"the key {key!r} is no input of the stage {stage.name!r}",
                where=node.where,
                do=nearest(key, list(stage.slots)),
            )
    config = stage.config.read(settings, node.where)
    inputs = {
        name: _plug(node, name, slot, steps)
        for name, slot in stage.slots.items()
        if name in node.settings
    }
    for name, slot in stage.slots.items():
        if name not in inputs and not slot.optional:
            raise RecipeError(
                f"the input {name!r} is missing",
                where=node.where,
                wanted=f'{name} = "@..." ({slot.kind})',
            )

    def digest(path: str) -> str:
        try:
            file = locate(path, data)
        except DataError:
            if absent is None:
                raise
            absent.setdefault(node.name, []).append(path)
            return f"absent: {path}"
        return store.digest(file)

    literals = identity(config, digest)
    addresses = {
        name: {label: steps[ref].address for label, ref in given.items()}
        if isinstance(given, dict)
        else steps[given].address
        for name, given in inputs.items()
    }
    where = address(stage.name, stage.version, literals, addresses)
    return Step(
        node, stage, config, inputs, literals, addresses, where, store.find(stage.name, where)
    )


def _plug(node: Node, name: str, slot: Slot, steps: dict[str, Step]) -> Any:
    given = node.settings[name]
    if isinstance(given, str) and not slot.many:
        return _reference(node, name, slot, given, steps)
    if isinstance(given, str):
        given = [given]
    if isinstance(given, list) and slot.many:
        given = {str(ref).removeprefix("@"): ref for ref in given}
    if not isinstance(given, dict) or not slot.many:
        raise RecipeError(
            "an input is plugged in the wrong way",
            where=f"{node.where}.{name}",
            wanted='"@name"' if not slot.many else '"@name", a list or a table of them',
            got=given,
        )
    return {label: _reference(node, name, slot, ref, steps) for label, ref in given.items()}


def _reference(node: Node, name: str, slot: Slot, ref: Any, steps: dict[str, Step]) -> str:
    if not isinstance(ref, str) or not ref.startswith("@"):
        raise RecipeError(
            "an input is a reference to a stage of the recipe",
            where=f"{node.where}.{name}",
            wanted='"@name"',
            got=repr(ref),
        )
    source = steps[ref[1:]]
    if source.stage.kind not in slot.kind.split(" or "):
        raise RecipeError(
            "an input is of the wrong kind",
            where=f"{node.where}.{name}",
            wanted=slot.kind,
            got=f"{ref} is a {source.stage.kind}",
        )
    return source.name


def with_located_paths(config: Config, data: tuple[Path, ...]) -> Config:
    """The same config with every external path made one that can be opened; for the stage's run only."""
    changed: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        marks = [*field.metadata, *_marks(field.annotation)]
        new = _located(value, data, any(isinstance(mark, External) for mark in marks))
        if new is not value:
            changed[name] = new
    return config.model_copy(update=changed) if changed else config


def _located(value: Any, data: tuple[Path, ...], external: bool) -> Any:
    if isinstance(value, Config):
        return with_located_paths(value, data)
    if isinstance(value, list) and value:
        return [_located(item, data, external) for item in value]
    if isinstance(value, dict) and value:
        return {key: _located(item, data, external) for key, item in value.items()}
    return str(locate(value, data)) if external and isinstance(value, str) else value


def _marks(annotation: Any) -> list[Any]:
    inner = [m for argument in getattr(annotation, "__args__", ()) for m in _marks(argument)]
    return [*getattr(annotation, "__metadata__", ()), *inner]
