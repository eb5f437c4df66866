"""Hugging Face folders in and out, tensor by tensor: the families of model/families.py as our decoder,
all others as transformers' own (model/foreign.py).

What a family of transformers has is written as that family, which transformers and vLLM load without
code of ours. What none has (skips, MTP outside K-EXAONE, an unusual mixture of traits) is written as a
class of its own, with our names: transformers refuses it, unless its user trusts the code that lies in
the folder (remote/modeling_endonym.py, which load() never runs); save(plain=True) leaves out what is in
the way instead, and says what that was.
"""

import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from endonym.core.errors import DataError, RecipeError, StoreError
from endonym.model.checkpoint import (
    INDEX,
    SINGLE,
    CausalLM,
    read_json,
    weight_files,
    write_aside,
    write_json,
)
from endonym.model.config import ModelConfig
from endonym.model.decoder import Decoder, initialise
from endonym.model.families import Layout, Part, layout, shape
from endonym.model.hub import OWN, config_from, why_not_native
from endonym.model.shards import Planned, Shards, lay_out, write_shards
from endonym.model.to_hub import REMOTE, config_to, own_config

SHARD_BYTES = 5 * 10**9

PIECE = {"cpu": 2**18}
"""Elements that are read at once where they are converted or put elsewhere: what a cache holds, or, to
another device, 2^24."""

# Older exports carry the rotation's frequencies, which follow from rope_theta.
_DERIVED = "rotary_emb.inv_freq"


@dataclass(frozen=True)
class Saved:
    """What save() wrote.

    architecture: the class that loads it
    dropped:      what the model had and the folder has not
    """

    architecture: str
    dropped: tuple[str, ...] = ()


def new(config: ModelConfig, seed: int) -> Decoder:
    """A decoder with fresh weights (decoder.initialise)."""
    return initialise(empty(config).to_empty(device="cpu"), seed)


def load(
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    native: bool = True,
) -> CausalLM:
    """The model of a folder, its weights in `dtype` on `device`, in evaluation mode.

    native=False takes transformers' module even where our decoder could run it.

    Tensor by tensor: less than one tensor of the folder is held beside the model. A decoder's `family`
    is its model_type, which save() keeps. MTP modules that config.json announces and that the folder
    lacks altogether (transformers' save_pretrained leaves them out) are not there.
    """
    folder = Path(folder)
    raw = read_json(folder / "config.json")
    if not native or why_not_native(raw) is not None:
        from endonym.model.foreign import load_foreign

        return load_foreign(folder, device=device, dtype=dtype)
    config = config_from(raw, where=folder / "config.json")
    shards = Shards(folder)
    try:
        _refuse_duplicates(folder)
        if config.mtp_modules and not any(name.startswith("mtp.") for name in shards.entries):
            config = config.model_copy(update={"mtp_modules": 0})
        model = empty(config)
        family = raw["model_type"]
        model.load_state_dict(filled(model, family, shards, dtype, device), assign=True)
    finally:
        shards.close()
    model.family = family
    return model.eval()


def save(
    model: CausalLM,
    folder: str | Path,
    *,
    eos_ids: Iterable[int] | None = None,
    bos_id: int | None = None,
    pad_id: int | None = None,
    family: str | None = None,
    plain: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> Saved:
    """config.json, safetensors and generation_config.json, which transformers, vLLM and load() read.

    eos_ids: where generation stops; bos_id, pad_id: likewise for their roles. Left out, what the
    model's own configuration says stays.
    family: the model_type to be written where that family has all that the decoder has; left out, the
    one it was loaded from. Else it is the first family that has.
    plain: a class of transformers at any price: skips and MTP modules are left out if no family has
    them, and a RecipeError says so if that is not enough.
    shard_bytes: a larger model is written as several files of at most this size and an index.

    Tensor by tensor too; the files are written aside and moved in, config.json last.
    """
    folder = Path(folder)
    if not isinstance(model, Decoder):
        model.save(folder, eos_ids=eos_ids, bos_id=bos_id, pad_id=pad_id)
        return Saved(type(model.module).__name__)
    roles: dict[str, Any] = {}
    if eos_ids is not None:
        ids = sorted(eos_ids)
        roles["eos_token_id"] = ids[0] if len(ids) == 1 else ids
    if bos_id is not None:
        roles["bos_token_id"] = bos_id
    if pad_id is not None:
        roles["pad_token_id"] = pad_id
    config = model.config.model_copy(update=roles)
    raw, config, dropped = _described(config, family or getattr(model, "family", None), plain)
    raw["torch_dtype"] = str(model.head.dtype).removeprefix("torch.")
    tensors = {
        name: tensor.detach()
        for name, tensor in model.state_dict().items()
        if (config.mtp_modules or not name.startswith("mtp."))
        and (config.skips or not name.startswith("model.skip_alpha."))
    }
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    write_weights(folder, layout(config, raw["model_type"], shapes), tensors, shard_bytes)
    kept = ("bos_token_id", "eos_token_id", "pad_token_id")
    generation = {name: raw[name] for name in kept if raw[name] is not None}
    write_json(folder / "generation_config.json", generation)
    if raw["model_type"] == OWN:
        code = files("endonym.model").joinpath("remote", REMOTE).read_bytes()
        write_aside(folder / REMOTE, lambda aside: aside.write_bytes(code))
    else:
        (folder / REMOTE).unlink(missing_ok=True)
    write_json(folder / "config.json", raw)
    return Saved(raw["architectures"][0], dropped)


def write_weights(
    folder: Path, plan: Layout, tensors: Mapping[str, Tensor], shard_bytes: int = SHARD_BYTES
) -> None:
    """Our tensors as theirs: one file, or shards and an index; what the folder held before goes."""
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    planned = [
        Planned(name, tensors[parts[0].name].dtype, shape(parts, shapes))
        for name, parts in plan.items()
    ]
    shards = lay_out(planned, shard_bytes)
    values = (
        (_stretch(tensors[part.name], part).cpu() for part in plan[each.name])
        for shard in shards
        for each in shard
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".aside") as aside:
            write_shards(Path(aside), shards, values)
            written = sorted(os.listdir(aside), key=lambda name: (name == INDEX, name))
            for name in written:
                os.replace(Path(aside) / name, folder / name)
        # A reader asks for the index first, so the old one goes before its shards.
        for old in (INDEX, SINGLE, *sorted(each.name for each in folder.glob("model-*-of-*"))):
            if old not in written:
                (folder / old).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError("a model could not be written", where=folder, got=error) from error


def _described(
    config: ModelConfig, family: str | None, plain: bool
) -> tuple[dict[str, Any], ModelConfig, tuple[str, ...]]:
    """config.json, the configuration that it describes and what that lacks."""
    dropped: list[str] = []
    while True:
        try:
            return config_to(config, family), config, tuple(dropped)
        except RecipeError:
            if not plain:
                return own_config(config), config, ()
            if config.skips:
                dropped.append(f"{len(config.skips)} skips")
                config = config.model_copy(update={"skips": []})
            elif config.mtp_modules:
                dropped.append(f"{config.mtp_modules} MTP modules")
                config = config.model_copy(update={"mtp_modules": 0})
            else:
                raise


def empty(config: ModelConfig) -> Decoder:
    # On the meta device, so that no weight is drawn (from the global generator) to be thrown away.
    with torch.device("meta"), Undrawn():
        return Decoder(config)


class Undrawn(TorchFunctionMode):
    """Modules draw no first weights. (Even on the meta device normal_ imports torch.compile: 2 s.)"""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__name__", None) in ("normal_", "uniform_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def filled(
    model: Decoder,
    family: str,
    shards: Shards,
    dtype: torch.dtype,
    device: str | torch.device,
) -> dict[str, Tensor]:
    """The model's state out of a folder. Selection biases stay in float32 whatever `dtype` is."""
    wanted = model.state_dict()
    shapes = {name: tensor.shape for name, tensor in wanted.items()}
    exact = {name for name, _ in model.named_buffers()}
    plan = _found(model.config, family, shapes, shards)
    state: dict[str, Tensor] = {}
    place = torch.device(device).type
    piece = PIECE.get(place, 2**24)
    for name in sorted(
        plan, key=lambda each: (shards.entries[each].file, shards.entries[each].start)
    ):
        parts, entry = plan[name], shards.entries[name]
        kinds = {part.name: torch.float32 if part.name in exact else dtype for part in parts}
        whole = len(parts) == 1 and parts[0].expert is None
        if whole and kinds == {parts[0].name: entry.dtype} and place == "cpu":
            state[parts[0].name] = shards.read(name)
            continue
        for each, kind in kinds.items():
            if each not in state:
                state[each] = torch.empty(shapes[each], dtype=kind, device=device)
        _pour(shards.pieces(name, piece), [_stretch(state[part.name], part) for part in parts])
    return state


def _pour(pieces: Iterator[Tensor], targets: list[Tensor]) -> None:
    """The elements of the pieces into the targets, one after the other; none is left on either side."""
    piece = torch.empty(0)
    for target in targets:
        flat, at = target.view(-1), 0
        while at < len(flat):
            if not len(piece):
                piece = next(pieces)
            count = min(len(piece), len(flat) - at)
            flat[at : at + count] = piece[:count]
            piece, at = piece[count:], at + count


def _found(
    config: ModelConfig, family: str, shapes: Mapping[str, torch.Size], shards: Shards
) -> Layout:
    """The tensors of the folder, each with its place: every number of ours is there, and once."""
    plain = layout(config, family, shapes)
    known = {**layout(config, family, shapes, also=True), **plain}
    found: Layout = {}
    unknown: list[str] = []
    filled = dict.fromkeys(shapes, 0)
    for name, entry in shards.entries.items():
        if name.endswith(_DERIVED):
            continue
        if name not in known:
            if not (config.tie_word_embeddings and name == "lm_head.weight"):
                unknown.append(name)
            continue
        expected = shape(known[name], shapes)
        if entry.shape != expected:
            raise DataError(
                f"{name} has another shape than config.json says",
                where=entry.file, wanted=expected, got=entry.shape,
            )  # fmt: skip
        if not entry.dtype.is_floating_point:
            raise DataError(
                f"{name} does not hold weights", where=entry.file,
                wanted="floating-point numbers", got=entry.dtype,
            )  # fmt: skip
        found[name] = known[name]
        for part in known[name]:
            filled[part.name] += part.rows * math.prod(expected[1:])
    full = {name: math.prod(size) for name, size in shapes.items()}
    missing = [
        name
        for name, parts in plain.items()
        if name not in found and any(filled[part.name] < full[part.name] for part in parts)
    ]
    twice = [
        name for name, parts in found.items() if any(filled[p.name] > full[p.name] for p in parts)
    ]
    for what, names in (
        ("weights are missing", missing),
        ("weights are there that the configuration knows no place for", unknown),
        ("weights are there twice, under two names", twice),
    ):
        if names:
            some = ", ".join(sorted(names)[:4])
            raise DataError(what, where=shards.folder, got=f"{len(names)}: {some} ...")
    return found


def _stretch(tensor: Tensor, part: Part) -> Tensor:
    if not tensor.dim():
        return tensor
    whole = tensor if part.expert is None else tensor[part.expert]
    return whole[part.start : part.stop]


def _refuse_duplicates(folder: Path) -> None:
    """A name that is given twice, in the index, in a header or in two shards: readers would differ in
    which one they take."""

    def loads(text: bytes, where: Path) -> dict[str, Any]:
        def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            seen: set[str] = set()
            for name, _ in pairs:
                if name in seen:
                    raise DataError(f"{name} is named twice", where=where)
                seen.add(name)
            return dict(pairs)

        return json.loads(text, object_pairs_hook=once)

    if (folder / INDEX).exists():
        loads((folder / INDEX).read_bytes(), folder / INDEX)
    holders: dict[str, Path] = {}
    for file in weight_files(folder):
        with file.open("rb") as opened:
            header = loads(opened.read(int.from_bytes(opened.read(8), "little")), file)
        for name in header.keys() - {"__metadata__"}:
            if name in holders:
                raise DataError(
                    f"two shards hold {name}", where=file, got=f"also {holders[name].name}"
                )
            holders[name] = file
