"""The tensors of a checkpoint: all that must survive, the rows of them that one process holds, and the
way back into a model and an optimizer, by as many processes as there are now.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from endonym.core.errors import StoreError
from endonym.train.eight_bit import from_tensors, to_tensors

STARTS = "starts"
"""In a file's header: the number of each tensor's first row there, in the whole tensor; left out: 0."""


class Saved(Mapping[str, Tensor]):
    """The tensors of a checkpoint by name, in whichever of its files their rows are."""

    def __init__(self, folder: Path, names: list[str]):
        self.folder = folder
        self._pieces: dict[str, list[tuple[int, Any]]] = {}
        for name in names:
            file = safe_open(folder / name, "pt")
            starts = json.loads((file.metadata() or {}).get(STARTS, "{}"))
            for key in file.keys():  # noqa: SIM118, it is no dict
                self._pieces.setdefault(key, []).append((starts.get(key, 0), file))
        for pieces in self._pieces.values():
            pieces.sort(key=lambda piece: piece[0])

    def __getitem__(self, name: str) -> Tensor:
        return self.rows(name, 0, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole tensor. StoreError where rows of it are in no file, or in two."""
        stop, shape = 0, []
        for start, file in self._pieces[name]:
            shape = file.get_slice(name).get_shape()
            if shape and start != stop:
                raise StoreError(
                    "the files of a checkpoint do not fit together",
                    where=f"{self.folder}: {name}",
                    wanted=f"row {stop} next",
                    got=f"row {start}",
                )
            stop = start + shape[0] if shape else 0
        return (stop, *shape[1:]) if shape else ()

    def rows(self, name: str, start: int, stop: int | None) -> Tensor:
        """Rows start to stop (None: to the end) of a tensor."""
        shape = self.shape(name)
        if not shape:
            return self._pieces[name][0][1].get_tensor(name)
        stop = shape[0] if stop is None else stop
        found = []
        for begin, file in self._pieces[name]:
            piece = file.get_slice(name)
            first, last = max(start - begin, 0), min(stop - begin, piece.get_shape()[0])
            if first < last:
                found.append(piece[first:last])
        return torch.cat(found) if len(found) != 1 else found[0]


def state_tensors(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    extra: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """All that must survive, by name: `model/<name>`, `optimizer/<key>/<name>` and `extra/<name>`.

    Tied weights once. DTensors stay what they are: own_rows() takes what this process holds.
    """
    tensors = {f"model/{name}": tensor.data for name, tensor in _model_tensors(model)}
    for name, parameter in model.named_parameters():
        for key, value in to_tensors(optimizer.state.get(parameter, {})).items():
            assert isinstance(value, Tensor), f"optimizer state {key} of {name} is no tensor"
            tensors[f"optimizer/{key}/{name}"] = value
    return tensors | {f"extra/{name}": tensor for name, tensor in (extra or {}).items()}


@torch.no_grad()
def restore(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    saved: Saved,
    extra: Mapping[str, Tensor] | None = None,
) -> None:
    """Puts what state_tensors gave back, in place; of what is divided, this process's part.

    StoreError where names or shapes are not this model's.
    """
    parameters = dict(model.named_parameters())
    frozen = {f"model/{name}" for name, each in parameters.items() if not each.requires_grad}
    wanted = {f"model/{name}": tensor for name, tensor in _model_tensors(model)}
    wanted |= {f"extra/{name}": tensor for name, tensor in (extra or {}).items()}
    found = {name for name in saved if not name.startswith("optimizer/")} - frozen
    for name in sorted(wanted.keys() | found):
        theirs = saved.shape(name) if name in found else None
        mine = tuple(wanted[name].shape) if name in wanted else None
        if mine != theirs:
            raise StoreError(
                "the checkpoint is of another model",
                where=f"{saved.folder}: {name}",
                wanted=mine,
                got=theirs,
                do="give this run another scratch folder",
            )
    for name, tensor in wanted.items():
        local(tensor).copy_(saved.rows(name, *extent(tensor)))
    states: dict[str, dict[str, Tensor]] = {}
    for name in saved:
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            key, _, parameter = rest.partition("/")
            states.setdefault(parameter, {})[key] = _beside(parameters[parameter], saved, name)
    optimizer.state.clear()
    for name, tensors in states.items():
        optimizer.state[parameters[name]] = from_tensors(parameters[name], tensors)


def _beside(parameter: Tensor, saved: Saved, name: str) -> Tensor:
    """A tensor of the optimizer's, divided as its parameter is, unless it is a single number."""
    shape = saved.shape(name)
    if not shape or not isinstance(parameter, DTensor):
        return saved[name]
    start, stop = (edge * shape[0] // parameter.shape[0] for edge in extent(parameter))
    return DTensor.from_local(
        saved.rows(name, start, stop).to(parameter.to_local().device),
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=torch.Size(shape),
        stride=torch.empty(shape, device="meta").stride(),
    )


def _model_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters that learn and persistent buffers, each object once."""
    yield from ((name, each) for name, each in model.named_parameters() if each.requires_grad)
    persistent = model.state_dict().keys()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in persistent)


def own_rows(tensor: Tensor, rank: int) -> tuple[Tensor, int] | None:
    """The rows that this process writes and the number of the first; None where another one does."""
    if not isinstance(tensor, DTensor):
        return (tensor, 0) if rank == 0 else None
    places = zip(tensor.device_mesh.get_coordinate(), tensor.placements)
    if any(place and placement.is_replicate() for place, placement in places):
        return None
    start, stop = extent(tensor)
    return (tensor.to_local(), start) if start < stop else None


def extent(tensor: Tensor) -> tuple[int, int | None]:
    """First row of a tensor that this process holds and the one after the last."""
    if not isinstance(tensor, DTensor):
        return 0, None
    shape, offset = compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    assert tuple(shape[1:]) == tuple(tensor.shape[1:]), f"divided along more than rows: {tensor}"
    return offset[0], offset[0] + shape[0]


def local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
