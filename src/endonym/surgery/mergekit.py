"""A merge as mergekit's YAML describes it: read strictly, every setting resolved for every tensor.

What is understood (mergekit 0.1.5):

    merge_method: linear | slerp | task_arithmetic | ties | dare_linear | dare_ties | passthrough
    models: [{model, parameters}]  or  slices: [{sources: [{model, layer_range, parameters}], parameters}]
    base_model, dtype, out_dtype, parameters
    tokenizer_source: base | union | a model      or  tokenizer: {source, pad_to_multiple_of}
    parameters: weight, density, t, scale (a number each); normalize, rescale, int8_mask (yes or no); lambda

A parameter is a value, a list of values that is interpolated over the layers of the slice, or a list
of {filter, value} of which the first whose filter is part of the tensor's name counts. What is said
of a source goes before what is said of its slice, and that before the whole.

A key that is not in this list is refused by name, and so is a parameter that the method does not
have: mergekit ignores those, and the merge is not the one that was meant. Beyond mergekit, `rescale`
may be "density" (blend.Sparse). int8_mask saves mergekit memory and changes nothing; it is read and
has no effect here.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from endonym.core.config import Config, nearest
from endonym.core.errors import DataError, RecipeError

Scalar = bool | int | float | str
PER_MODEL = ("weight", "density", "scale")
"""Parameters that each model has for itself."""

MOST_VALUES = 100_000
REQUIRED = object()
_DELTA = {
    "weight": REQUIRED,
    "normalize": False,
    "lambda": 1.0,
    "rescale": False,
    "int8_mask": False,
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "linear": {"weight": REQUIRED, "normalize": True},
    "slerp": {"t": REQUIRED},
    "task_arithmetic": _DELTA,
    "ties": {**_DELTA, "density": 1.0, "normalize": True},
    "dare_linear": {**_DELTA, "density": 1.0, "rescale": True},
    "dare_ties": {**_DELTA, "density": 1.0, "rescale": True},
    "passthrough": {"scale": None},
}
"""The parameters of each method and what they are where the file says nothing."""

DTYPES = ("float32", "float16", "bfloat16", "float64")


class Conditional(Config):
    value: Scalar | list[Scalar]
    filter: str | None = None
    """Part of a tensor's name; left out or "*": every tensor."""


Setting = Conditional | list[Conditional] | list[Scalar] | Scalar
Settings = dict[str, Setting]


class Source(Config):
    model: str
    """A folder, relative to the one that `merge` is told."""
    layer_range: tuple[int, int]
    """First layer and the one after the last."""
    parameters: Settings = {}


class Slice(Config):
    """Some layers of the result: the same number of layers of each source, merged."""

    sources: list[Source] = Field(min_length=1)
    parameters: Settings = {}

    @model_validator(mode="after")
    def _same_length(self):
        lengths = {each.layer_range[1] - each.layer_range[0] for each in self.sources}
        if len(lengths) > 1 or min(lengths) < 1 or any(s.layer_range[0] < 0 for s in self.sources):
            raise ValueError("layer_range of the same length, at least one layer, in all sources")
        return self


class Input(Config):
    model: str
    parameters: Settings = {}


class TokenizerChoice(Config):
    source: str = "union"
    pad_to_multiple_of: int | None = Field(default=None, ge=1)


class Merge(Config):
    """The whole file."""

    merge_method: Literal[
        "linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties", "passthrough"
    ]
    models: list[Input] | None = None
    slices: list[Slice] | None = None
    base_model: str | None = None
    dtype: str | None = None
    """Of the result, unless out_dtype is given. Sums are taken in float32 whatever this is (float64
    where it says so); mergekit rounds its inputs to `dtype` first and computes in it."""
    out_dtype: str | None = None
    tokenizer_source: str | None = None
    tokenizer: TokenizerChoice | None = None
    parameters: Settings = {}

    @model_validator(mode="after")
    def _whole(self):
        if bool(self.models) == bool(self.slices):
            raise ValueError("either models or slices")
        if self.tokenizer_source and self.tokenizer:
            raise ValueError("either tokenizer_source or tokenizer")
        for given in (self.dtype, self.out_dtype):
            if given is not None and given not in DTYPES:
                raise ValueError(f"dtype to be one of {', '.join(DTYPES)}, not {given}")
        known = self.known
        for settings in self._all_settings():
            for name in settings:
                if name not in known:
                    raise ValueError(
                        f"{self.merge_method} has no parameter {name!r}; {nearest(name, known)}"
                    )
        self._check_inputs()
        return self

    def _all_settings(self) -> Iterator[Settings]:
        yield self.parameters
        for each in self.models or ():
            yield each.parameters
        for each in self.slices or ():
            yield each.parameters
            for source in each.sources:
                yield source.parameters

    def _check_inputs(self) -> None:
        needs_base = self.merge_method not in ("linear", "passthrough")
        if needs_base and self.base_model is None:
            raise ValueError(f"a base_model, which {self.merge_method} needs")
        groups = [self.models] if self.models else [each.sources for each in self.slices]
        for group in groups:
            names = [each.model for each in group]
            others = [name for name in names if name != self.base_model]
            if self.slices and needs_base and self.base_model not in names:
                raise ValueError("the base_model among the sources of every slice")
            if len(set(names)) < len(names):
                raise ValueError("each model once")
            if self.merge_method == "slerp" and len(others) != 1:
                raise ValueError("slerp to have one model beside the base_model")
            if self.merge_method == "passthrough" and len(names) != 1:
                raise ValueError("passthrough to have one source")

    @property
    def known(self) -> list[str]:
        """The parameters that the method has."""
        return list(PARAMETERS[self.merge_method])

    @property
    def folders(self) -> list[str]:
        """Every model that is named, the base (or else the first) before the others."""
        named = [self.base_model] if self.base_model else []
        named += [each.model for each in self.models or ()]
        named += [source.model for each in self.slices or () for source in each.sources]
        return list(dict.fromkeys(named))

    def as_slices(self, layers: Mapping[str, int]) -> list[Slice]:
        """The slices; `models` are one slice over all layers, the base among its sources."""
        if self.slices:
            for each in self.slices:
                for source in each.sources:
                    if source.layer_range[1] > layers[source.model]:
                        raise RecipeError(
                            f"a slice wants layers that {source.model} does not have",
                            wanted=list(source.layer_range),
                            got=f"{layers[source.model]} layers",
                        )
            return self.slices
        inputs = list(self.models)
        if self.base_model and self.base_model not in [each.model for each in inputs]:
            inputs.append(Input(model=self.base_model))
        if len(counts := {each.model: layers[each.model] for each in inputs}) > 1 and (
            len(set(counts.values())) > 1
        ):
            raise DataError(
                "the models have different numbers of layers",
                got=", ".join(f"{name}: {count}" for name, count in counts.items()),
                do="name layer ranges with slices",
            )
        return [
            Slice(
                sources=[
                    Source(model=i.model, layer_range=(0, layers[i.model]), parameters=i.parameters)
                    for i in inputs
                ]
            )
        ]

    def parameter(
        self, name: str, tensor: str, depth: float, slice_: Slice, source: Source | None = None
    ) -> Any:
        """What `name` is for a tensor at `depth` (0 first, 1 last layer of the slice) of a source."""
        scopes = [source.parameters] if source else []
        default = PARAMETERS[self.merge_method].get(name)
        for scope in (*scopes, slice_.parameters, self.parameters):
            if name in scope:
                value = _resolve(scope[name], tensor, depth)
                if value is not None:
                    return _checked(name, value)
        if default is REQUIRED:
            raise RecipeError(
                f"the merge gives no {name}",
                where=f"{source.model}: {tensor}" if source else tensor,
                wanted=f"parameters: {{{name}: ...}}, also for tensors that no filter names",
            )
        return default


def read_mergekit(path: str | Path) -> Merge:
    """The merge that a YAML file describes."""
    path = Path(path)
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError("the merge's file cannot be read", where=path, got=error) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError("the merge's file is no YAML", where=path, got=error) from None
    if not isinstance(found, dict):
        raise RecipeError("the merge's file is no mapping", where=path, got=type(found).__name__)
    if not _is_small(found):
        raise RecipeError(
            "the merge's file names more than any merge needs", where=path,
            wanted=f"at most {MOST_VALUES} values, aliases written out",
        )  # fmt: skip
    return Merge.read(found, str(path))


def _is_small(tree: Any) -> bool:
    """Whether a tree, in which an alias may stand for a tree that holds aliases, is soon gone through."""
    left, seen = [tree], 0
    while left and seen <= MOST_VALUES:
        each = left.pop()
        seen += 1
        if isinstance(each, dict):
            left += each.values()
        elif isinstance(each, list):
            left += each
    return seen <= MOST_VALUES


def _resolve(setting: Setting, tensor: str, depth: float) -> Scalar | None:
    if isinstance(setting, Conditional):
        setting = [setting]
    if not isinstance(setting, list):
        return setting
    if setting and isinstance(setting[0], Conditional):
        for each in setting:
            if each.filter in (None, "*") or each.filter in tensor:
                return _resolve(each.value, tensor, depth)
        return None
    return _interpolated(setting, depth)


def _interpolated(values: Sequence[Scalar], depth: float) -> Scalar | None:
    """Numbers are anchors at equal distances over the layers; of other values the last one passed."""
    if not values:
        return None
    at = depth * (len(values) - 1)
    low = int(at)
    numbers = [_number(value) for value in values]
    if any(number is None for number in numbers):
        return values[low]
    high = min(len(values) - 1, low + 1)
    return (1 - (at - low)) * numbers[low] + (at - low) * numbers[high]


def _number(value: Scalar) -> float | None:
    """YAML 1.1 reads 1e-4 (without a point) as text; here it is a number as it is meant."""
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _checked(name: str, value: Scalar) -> Any:
    if name in ("normalize", "rescale", "int8_mask"):
        if value in (True, False):  # 1 and 0 too
            return bool(value)
        if name == "rescale" and value == "density":
            return value
        raise RecipeError(f"{name} is neither true nor false", where="parameters", got=repr(value))
    number = _number(value)
    if number is None or number != number:
        raise RecipeError(f"{name} is not a number", where="parameters", got=repr(value))
    return number
