"""Settings read strictly: a frozen value out of a mapping, or an error that names the nearest key.

A field left at its default leaves no trace in an address (core/fingerprint.py), so a new field may
be added with a default without changing what already stands. A default is the published setting;
whatever a recipe says is visibly its own.
"""

from difflib import get_close_matches
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from endonym.core.errors import RecipeError


class External:
    """Marks a field that names a file or folder outside the store.

    Its identity is the content's hash, never its path: moving the file changes no address,
    changing a byte does.
    """


ExternalPath = Annotated[str, External()]


class Config(BaseModel):
    """Base of every stage's settings: frozen, typed, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=False, validate_default=False, allow_inf_nan=False
    )

    @classmethod
    def read(cls, mapping: dict[str, Any], where: str = "") -> Self:
        """An instance from plain TOML values. `where` names the place, e.g. recipe.toml: stages.cpt."""
        try:
            return cls.model_validate(mapping)
        except ValidationError as error:
            raise _explain(cls, error, where) from None


def nearest(name: str, known: list[str]) -> str:
    """A hint that names the key most like `name`, or all keys if none is near."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"


def _explain(cls: type[BaseModel], error: ValidationError, where: str) -> RecipeError:
    first = error.errors(include_url=False)[0]
    keys = [str(part) for part in first["loc"]]
    place = ".".join([where, *keys]) if where else ".".join(keys)
    more = f" ({error.error_count() - 1} more after this one)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = list(_fields_at(cls, first["loc"][:-1]))
        return RecipeError(
            f"unknown key {keys[-1]!r}{more}", where=place, do=nearest(keys[-1], known)
        )
    if first["type"] == "missing":
        return RecipeError(
            f"the key {keys[-1]!r} is missing{more}", where=place, do="give it a value"
        )
    return RecipeError(
        f"a value does not fit its field{more}",
        where=place,
        wanted=first["msg"],
        got=repr(first.get("input")),
    )


def _fields_at(cls: type[BaseModel], path: tuple[Any, ...]) -> dict[str, Any]:
    """The fields of the model that `path` leads to; list positions and dictionary keys are passed over."""
    current: Any = cls
    for part in path:
        if isinstance(part, str) and part in getattr(current, "model_fields", {}):
            current = _model_in(current.model_fields[part].annotation) or current
    return current.model_fields


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first Config class inside an annotation such as list[Source] | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found:
            return found
    return None
