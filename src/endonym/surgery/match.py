"""Tensors of several models matched by their names and layers: what a merge has to make, of what.

Nothing is read here but headers. Any architecture: a layer is a number in a tensor's name.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from endonym.core.errors import DataError, RecipeError
from endonym.model.checkpoint import read_json
from endonym.model.shards import Shards
from endonym.surgery import align
from endonym.surgery.mergekit import PER_MODEL, Merge, Slice, Source

LAYER = re.compile(r"^(.*?\b(?:layers|h|blocks))\.(\d+)\.(.+)$")
BUFFERS = ("rotary_emb.inv_freq", "e_score_correction_bias", "masked_bias")
"""Floating-point tensors that no gradient has made: an average of them means nothing."""

COUNTS = ("num_hidden_layers", "n_layer", "num_layers")
"""How families name the number of layers."""

INNER = ("text_config", "endonym")
"""Where config.json keeps the sizes if not at the top: families with vision, and our own decoder."""

HEAD = "lm_head.weight"
FIRST = re.compile(r"\b(embed(?!_out)|wte|wpe|word_embeddings)")
"""Outside the layers, what stands before them."""


class Model:
    """A model folder: its configuration, its tensors, and which of them belong to which layer."""

    def __init__(self, name: str, folder: Path):
        self.name, self.folder = name, folder
        self.config = read_json(folder / "config.json")
        if self.config.get("quantization_config"):
            raise DataError(
                "quantised weights cannot be merged", where=folder / "config.json",
                got="quantization_config", do="give the weights before they were quantised",
            )  # fmt: skip
        self.shards = Shards(folder)
        self.entries = self.shards.entries
        self.inner = next((key for key in INNER if self.config.get(key)), None)
        """Of INNER, the one that config.json has."""
        self.text = self.config[self.inner] if self.inner else self.config
        self.layers = next((self.text[k] for k in COUNTS if k in self.text), 0)
        self.stack = self._stack()
        self.outside: list[str] = []
        """Tensors of no layer; the head apart."""
        self.by_layer: list[dict[str, str]] = [{} for _ in range(self.layers)]
        """For each layer its tensors: what follows the number -> the whole name."""
        self.beyond: str | None = None
        """A tensor of the stack with a higher number: an MTP module that is kept there."""
        for name in self.entries:
            match = LAYER.match(name)
            if match and match[1] == self.stack and int(match[2]) < self.layers:
                self.by_layer[int(match[2])][match[3]] = name
                continue
            if match and match[1] == self.stack:
                self.beyond = name
            if name != HEAD:
                self.outside.append(name)
        self.table = min(filter(_is_embedding, self.outside), default=None, key=len)

    @property
    def rows(self) -> int:
        """Rows of the embedding."""
        return self.entries[self.table].shape[0] if self.table else 0

    def _stack(self) -> str:
        """What the names of the decoder's layers begin with: the stack of as many as config.json says."""
        found: dict[str, set[int]] = {}
        for name in self.entries:
            if match := LAYER.match(name):
                found.setdefault(match[1], set()).add(int(match[2]))
        fitting = [prefix for prefix, seen in found.items() if seen >= {*range(self.layers)}]
        if not self.layers or len(fitting) != 1:
            raise DataError(
                "the layers of a model cannot be told", where=self.folder,
                wanted=f"one stack of the {self.layers} layers that config.json says",
                got=", ".join(f"{p}: {len(s)} layers" for p, s in found.items()) or "no layers",
            )  # fmt: skip
        return fitting[0]

    @property
    def head_is_tied(self) -> bool:
        tied = self.config.get("tie_word_embeddings", self.text.get("tie_word_embeddings"))
        return HEAD not in self.entries or bool(tied)

    def source(self, name: str) -> str:
        """The tensor to read for `name`: a head that is tied is the embedding."""
        return self.table if name == HEAD and self.head_is_tied else name


@dataclass(frozen=True)
class Step:
    """One tensor of the result: from which tensors, with which settings."""

    name: str
    parts: list[tuple[Model, str]]
    base: int | None
    """Which of the parts is the base's."""
    shape: tuple[int, ...]
    dtype: torch.dtype
    copied: bool
    settings: dict[str, Any] = field(default_factory=dict)


def plan(
    recipe: Merge, models: Mapping[str, Model], rows: align.Order | None
) -> tuple[list[Step], list[tuple[Model, int]]]:
    """The tensors of the result, and for each of its layers the model and layer it stands on."""
    slices = recipe.as_slices({name: model.layers for name, model in models.items()})
    layers: list[tuple[Model, int]] = []
    steps = _outside(recipe, slices[0], models, rows, first=True)
    for part in slices:
        lead = _lead(recipe, part)
        length = lead.layer_range[1] - lead.layer_range[0]
        for step in range(length):
            depth = step / (length - 1) if length > 1 else 1.0
            steps += _layer(recipe, part, models, step, len(layers), depth)
            layers.append((models[lead.model], lead.layer_range[0] + step))
    for model in models.values():
        if model.beyond and len(layers) != model.layers:
            raise DataError(
                "a model has layers beyond those that config.json counts, and cannot be stacked",
                where=model.folder,
                wanted=f"{model.layers} layers, in the result too",
                got=model.beyond,
            )
    return steps + _outside(recipe, slices[-1], models, rows, first=False), layers


def _lead(recipe: Merge, part: Slice) -> Source:
    """The source that says which tensors there are, and whose settings a layer keeps."""
    return next((s for s in part.sources if s.model == recipe.base_model), part.sources[0])


def _layer(
    recipe: Merge, part: Slice, models: Mapping[str, Model], step: int, to: int, depth: float
) -> list[Step]:
    """The tensors of layer `to` of the result: layer `step` of a slice."""
    tensors = {
        source.model: models[source.model].by_layer[source.layer_range[0] + step]
        for source in part.sources
    }
    lead = _lead(recipe, part)
    _same_names(tensors, lead.model)
    stack = models[lead.model].stack
    return [
        _step(
            recipe, part, f"{stack}.{to}.{rest}",
            [(models[s.model], tensors[s.model][rest]) for s in part.sources], depth, None,
        )
        for rest in tensors[lead.model]
    ]  # fmt: skip


def _outside(
    recipe: Merge,
    part: Slice,
    models: Mapping[str, Model],
    rows: align.Order | None,
    first: bool,
) -> list[Step]:
    """The tensors of no layer that stand before the layers (first) or do not.

    A head is among them only if some model of the merge has one of its own; a tied one is then the
    embedding.
    """
    sources = [models[source.model] for source in part.sources]
    names = {model.name: {name: name for name in model.outside} for model in sources}
    _same_names(names, sources[0].name)
    wanted = [name for name in sources[0].outside if bool(FIRST.search(name)) == first]
    if not first and not all(model.head_is_tied for model in models.values()):
        wanted.append(HEAD)
    return [
        _step(recipe, part, name, [(model, model.source(name)) for model in sources], 0.0, rows)
        for name in wanted
    ]


def _same_names(tensors: Mapping[str, Mapping[str, str]], lead: str) -> None:
    for name, own in tensors.items():
        for there, other, lacks in ((tensors[lead], own, name), (own, tensors[lead], lead)):
            if missing := there.keys() - other.keys():
                rest = min(missing)
                raise DataError(
                    "the models do not have the same tensors",
                    where=lacks,
                    wanted=f"{there[rest]}, which {lead if lacks == name else name} has",
                    got=f"{len(missing)} tensors missing",
                    do="merge models of one architecture",
                )


def _step(
    recipe: Merge,
    part: Slice,
    name: str,
    parts: list[tuple[Model, str]],
    depth: float,
    rows: align.Order | None,
) -> Step:
    """One tensor, after its sources are found to fit, with its settings."""
    entries = [model.entries[tensor] for model, tensor in parts]
    names = [model.name for model, _ in parts]
    base = names.index(recipe.base_model) if recipe.base_model in names else None
    lead = entries[base or 0]
    is_table = rows is not None and align.is_table(name)
    shapes = {e.shape[1:] if is_table else e.shape for e in entries}
    kinds = {e.dtype.is_floating_point for e in entries}
    if len(shapes) > 1 or len(kinds) > 1:
        raise DataError(
            f"{name} is not the same kind of tensor in all models",
            wanted="one shape, and whole numbers or fractions throughout",
            got=", ".join(f"{n}: {e.dtype} {e.shape}".replace("torch.", "")
                          for n, e in zip(names, entries, strict=True)),
        )  # fmt: skip
    if is_table and (short := [m for m, t in parts if m.entries[t].shape[0] != m.rows]):
        raise DataError(
            f"{name} has not as many rows as the embedding", where=short[0].folder,
            wanted=short[0].rows, got=short[0].entries[short[0].source(name)].shape[0],
        )  # fmt: skip
    copied = not lead.dtype.is_floating_point or name.endswith(BUFFERS)
    dtype = lead.dtype
    if not copied:
        for entry in entries:
            dtype = torch.promote_types(dtype, entry.dtype)
        if given := recipe.out_dtype or recipe.dtype:
            dtype = getattr(torch, given)
    shape = (rows.rows, *lead.shape[1:]) if is_table else lead.shape
    settings = {} if copied else _settings(recipe, part, name, parts, depth, base)
    return Step(name, parts, base, shape, dtype, copied, settings)


def _settings(
    recipe: Merge,
    part: Slice,
    name: str,
    parts: Sequence[tuple[Model, str]],
    depth: float,
    base: int | None,
) -> dict[str, Any]:
    """Every parameter of the method: one value, or for those of the models a list."""
    sources = {source.model: source for source in part.sources}
    found: dict[str, Any] = {}
    for parameter in recipe.known:
        if parameter not in PER_MODEL:
            found[parameter] = recipe.parameter(parameter, name, depth, part)
            continue
        # A task vector is a model's; the base has none. (In `linear` the base is a model like others.)
        own = [
            (model, tensor)
            for number, (model, tensor) in enumerate(parts)
            if recipe.merge_method in ("linear", "passthrough") or number != base
        ]
        found[parameter] = [
            recipe.parameter(parameter, tensor, depth, part, sources[model.name])
            for model, tensor in own
        ]
    if found.get("normalize") and recipe.merge_method == "linear" and not sum(found["weight"]):
        raise RecipeError("weights that sum to 0 cannot be normalised", where=name)
    return found


def _is_embedding(name: str) -> bool:
    return align.is_table(name) and bool(FIRST.search(name))
