"""Model folders in, one model folder out: merging and stacking, a tensor at a time.

Any architecture: tensors are matched by their names, layers by the number in them (match.py). Of each
model at most one tensor is in memory, and for most equations only pieces of one (blend.py); the result
goes straight into its file. Rows of the vocabulary are matched by token (align.py).

Tensors that are not weights are copied from the base (or the first model): integers, masks, and the
buffers in match.BUFFERS. config.json is the base's, with what the merge changes; the tokenizer's files
are copied from the model whose vocabulary the result has.
"""

import hashlib
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from endonym.core.errors import DataError, RecipeError
from endonym.model.checkpoint import read_json, write_json
from endonym.model.shards import Planned, lay_out, write_shards
from endonym.surgery import align, blend
from endonym.surgery.match import COUNTS, HEAD, Model, Step, plan
from endonym.surgery.mergekit import Merge, read_mergekit

PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")
"""Fields of config.json that say something of each layer in turn."""

IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "tokenizer.model", "vocab_scores.json", "chat_template.jinja",
    "chat_template.json",
)  # fmt: skip


def merge(
    recipe: Merge | str | Path,
    out: str | Path,
    *,
    models: str | Path = ".",
    seed: int = 0,
    shard_bytes: int = 5 * 10**9,
) -> dict[str, Any]:
    """The folder `out`, merged as a mergekit YAML file (or its reading) says; figures about it.

    models: what the recipe's model names are relative to; no name is looked up on a hub.
    seed: of DARE's choice, together with the tensor's name and the model's number among the inputs.
    shard_bytes: larger results are split, with an index.

    `out` appears whole or not at all, and must not hold anything before. Computed in float32 (float64 if
    a tensor or `dtype` is) and rounded once; in the type of the inputs if the recipe names none.
    DataError where models do not fit each other, by the name of the first tensor that does not.
    """
    recipe = recipe if isinstance(recipe, Merge) else read_mergekit(recipe)
    out = Path(out).absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError("the folder to write is not empty", where=out, do="name another")
    aside = out.with_name(f".{out.name}.partial")
    opened: dict[str, Model] = {}
    try:
        for name in recipe.folders:
            opened[name] = Model(name, Path(models) / name)
        shutil.rmtree(aside, ignore_errors=True)
        figures = _merge(recipe, opened, aside, seed, shard_bytes)
        aside.replace(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        for each in opened.values():
            each.shards.close()
    return figures


def _merge(
    recipe: Merge, models: Mapping[str, Model], out: Path, seed: int, shard_bytes: int
) -> dict[str, Any]:
    rows = _order(recipe, models)
    steps, layers = plan(recipe, models, rows)
    for model in {model.name: model for model, _ in layers}.values():
        own = list(range(model.layers))
        if model.text.get("skips") and [layer for _, layer in layers] != own:
            raise RecipeError(
                "a model with skips cannot be cut into slices: they lead from layer to layer",
                where=model.folder,
                wanted="all of its layers in their order",
                got=[layer for _, layer in layers],
                do="merge it whole, or write it without skips: endonym convert FOLDER --plain --out DIR",
            )
    shards = lay_out([Planned(s.name, s.dtype, s.shape) for s in steps], shard_bytes)
    by_name = {step.name: step for step in steps}
    out.mkdir(parents=True)
    write_shards(
        out, shards, (_values(recipe, by_name[p.name], rows, seed) for s in shards for p in s)
    )
    _write_files(recipe, models, out, rows, layers, steps)
    return {
        "tensors": len(steps),
        "copied": sum(step.copied for step in steps),
        "parameters": sum(math.prod(step.shape) for step in steps),
        "bytes": sum(each.bytes for shard in shards for each in shard),
        "shards": len(shards),
        "layers": len(layers),
        "rows_by": "token" if rows else "number",
    }


def _order(recipe: Merge, models: Mapping[str, Model]) -> align.Order | None:
    source, multiple = recipe.tokenizer_source, 1
    if recipe.tokenizer:
        source, multiple = recipe.tokenizer.source, recipe.tokenizer.pad_to_multiple_of or 1
    return align.order(
        {name: model.folder for name, model in models.items()},
        {name: model.rows for name, model in models.items()},
        source,
        multiple,
    )


# --- values -----------------------------------------------------------------------------------


class _Stream:
    """A tensor of a file as an operand, converted piece by piece."""

    def __init__(self, model: Model, name: str, dtype: torch.dtype):
        self.shards, self.name, self.dtype = model.shards, name, dtype
        self.elements = model.entries[name].elements

    def pieces(self) -> Iterator[Tensor]:
        for piece in self.shards.pieces(self.name, blend.PIECE):
            yield piece.to(self.dtype)


def _values(recipe: Merge, step: Step, rows: align.Order | None, seed: int) -> Iterator[Tensor]:
    """The elements of one tensor of the result, as pieces in its type."""
    if step.copied:
        model, name = step.parts[step.base or 0]
        yield from model.shards.pieces(name, blend.PIECE)
        return
    double = torch.float64 in (step.dtype, *(m.entries[n].dtype for m, n in step.parts))
    dtype = torch.float64 if double else torch.float32
    if rows is not None and align.is_table(step.name):
        operands = _rows(recipe, step, rows, dtype)
    else:
        operands = [_Stream(model, name, dtype) for model, name in step.parts]
    for piece in _blended(recipe, step, operands, seed):
        yield piece.to(step.dtype)


def _rows(
    recipe: Merge, step: Step, rows: align.Order, dtype: torch.dtype
) -> Sequence[blend.Operand]:
    tables = {model.name: model.shards.read(name) for model, name in step.parts}
    fill = align.Fill(tables, rows, recipe.folders[0], dtype)
    return [align.Rows(tables[name], rows.ids[name], fill) for name in tables]


def _blended(
    recipe: Merge, step: Step, operands: Sequence[blend.Operand], seed: int
) -> Iterable[Tensor]:
    """The recipe's equation on the operands."""
    method, given = recipe.merge_method, step.settings
    if method == "passthrough":
        scale = given["scale"][0]
        pieces = operands[0].pieces()
        return pieces if scale is None else (piece.mul_(scale) for piece in pieces)
    if method == "linear":
        return blend.linear(operands, given["weight"], given["normalize"])
    others = [each for number, each in enumerate(operands) if number != step.base]
    base = operands[step.base]
    if method == "slerp":
        return blend.slerp(base, others[0], given["t"])
    sparse, rescale = None, {True: "norm", False: None}.get(given["rescale"], given["rescale"])
    if method != "task_arithmetic":
        sparse = blend.Sparse("magnitude" if method == "ties" else "random", rescale)
    return blend.task_arithmetic(
        base,
        others,
        given["weight"],
        scale=given["lambda"],
        normalise=given["normalize"],
        sparse=sparse,
        densities=given.get("density", ()),
        elect=method in ("ties", "dare_ties"),
        seeds=[(seed, _number_of(step.name), number) for number in range(len(others))],
    )


def _number_of(name: str) -> int:
    """A tensor's name as a number: its draws do not depend on which tensors came before it."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


# --- files ------------------------------------------------------------------------------------


def _write_files(
    recipe: Merge,
    models: Mapping[str, Model],
    out: Path,
    rows: align.Order | None,
    layers: Sequence[tuple[Model, int]],
    steps: Sequence[Step],
) -> None:
    """Everything but the weights; config.json last."""
    base = models[recipe.folders[0]]
    owner = models[rows.owner] if rows and rows.owner else base
    if rows and rows.tokenizer:
        rows.tokenizer.save(out)
    else:
        _copy(owner.folder, out, TOKENIZER_FILES)
    _copy(base.folder, out, [file.name for file in base.folder.glob("*.py")])
    generation = base.folder / "generation_config.json"
    if generation.exists():
        write_json(out / generation.name, _with_ids(read_json(generation), base, owner))
    config = _with_ids(base.config, base, owner)
    text = dict(config[base.inner]) if base.inner else config
    text[next(key for key in COUNTS if key in text)] = len(layers)
    for key in PER_LAYER:
        if isinstance(text.get(key), list):
            text[key] = [model.text[key][layer] for model, layer in layers]
    if rows:
        text["vocab_size"] = rows.rows
    if text is not config:
        config[base.inner] = text
    if any(step.name == HEAD for step in steps):
        for each in (config, text):
            if each.get("tie_word_embeddings"):
                each["tie_word_embeddings"] = False
    types = {str(step.dtype).removeprefix("torch.") for step in steps if not step.copied}
    if len(types) == 1:
        config["dtype" if "dtype" in config else "torch_dtype"] = types.pop()
    write_json(out / "config.json", config)


def _with_ids(content: Mapping[str, Any], base: Model, owner: Model) -> dict[str, Any]:
    """A configuration whose control tokens are those of the model that gives the vocabulary."""
    if owner is base:
        return dict(content)
    return {**content, **{name: owner.config[name] for name in IDS if name in owner.config}}


def _copy(from_: Path, to: Path, names: Iterable[str]) -> None:
    for name in names:
        if (from_ / name).is_file():
            shutil.copyfile(from_ / name, to / name)
