"""AdamW whose two moments are kept in eight bits: torchao's, made to fit the loop and its checkpoints.

Each block of 256 numbers has one float32 scale and a code of eight bits for each number, which stands
for one of 256 values between -1 and 1, dense around zero (Dettmers et al., arXiv:2110.02861, section
2). Weights and arithmetic stay float32; six of the eight bytes of state a weight are saved. Tensors
of fewer than 4096 numbers, or of a number that blocks do not divide, keep their moments in float32.

It is made for a GPU, where torchao compiles the step. On a CPU it runs as it is, so that it can be
tried: there it takes a hundred times as long as fused AdamW (4.4M weights, one core: 1.3 s a step
against 9 ms; compiled 0.19 s, after 50 s).
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from endonym.core.errors import MachineError
from endonym.lang.extras import need

SMALLEST = 4096
"""Numbers of a tensor whose moments are of eight bits; torchao's."""


class AdamW8bit:
    """torchao's optimizer behind the loop's customs: a rate is a plain number."""

    def __init__(self, groups: list[dict], **settings: Any):
        _refuse_uneven(groups)
        torchao = need("torchao.optim", "gpu", "an optimizer with states of eight bits")
        self._inner = torchao.AdamW8bit(groups, **settings)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self._inner.param_groups

    @property
    def state(self) -> dict[Tensor, dict[str, Tensor]]:
        return self._inner.state

    def step(self) -> None:
        devices = {each.device.type for group in self.param_groups for each in group["params"]}
        for group in self.param_groups:
            # As a number it would be a constant of the compiled step, compiled anew when it changes.
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32)
        # Compiling would need a C++ compiler, which a machine without a GPU may not have.
        with torch.compiler.set_stance("force_eager" if devices == {"cpu"} else "default"):
            self._inner.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        self._inner.zero_grad(set_to_none)


def to_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of one parameter as plain tensors (or DTensors): `exp_avg` of eight bits becomes
    `exp_avg.codes` and `exp_avg.scale`; whatever is plain stays what it is."""
    found = {}
    for key, value in state.items():
        local = value.to_local() if isinstance(value, DTensor) else value
        if not hasattr(local, "codes"):
            found[key] = value
        elif isinstance(value, DTensor):
            found[f"{key}.codes"] = DTensor.from_local(
                local.codes, value.device_mesh, value.placements, run_check=False,
                shape=value.shape, stride=value.stride(),
            )  # fmt: skip
            found[f"{key}.scale"] = DTensor.from_local(
                local.scale, value.device_mesh, value.placements, run_check=False
            )
        else:
            found[f"{key}.codes"], found[f"{key}.scale"] = local.codes, local.scale
    return found


def from_tensors(parameter: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state out of what to_tensors() gave, bit for bit, on the parameter's device."""
    state = {}
    for key, value in tensors.items():
        stem, _, part = key.rpartition(".")
        if part == "codes":
            state[stem] = _joined(
                parameter, value, tensors[f"{stem}.scale"], signed=stem == "exp_avg"
            )
        elif part != "scale":
            state[key] = value.to(parameter.device, copy=True)
    return state


def _joined(parameter: Tensor, codes: Tensor, scale: Tensor, signed: bool) -> Tensor:
    name = "torchao.optim.subclass_8bit"
    eight = need(name, "gpu", "a checkpoint with optimizer states of eight bits")
    values = eight.get_qmap_signed() if signed else eight.get_qmap_unsigned()
    here = [each.to_local() if isinstance(each, DTensor) else each for each in (codes, scale)]
    here = [each.to(parameter.device, copy=True) for each in here]
    table = torch.tensor(values, dtype=torch.float32, device=parameter.device)
    state = eight.OptimState8bit(*here, table, signed, dtype=parameter.dtype)
    if not isinstance(parameter, DTensor):
        return state
    return DTensor.from_local(
        state, parameter.device_mesh, parameter.placements, run_check=False,
        shape=parameter.shape, stride=parameter.stride(),
    )  # fmt: skip


def _refuse_uneven(groups: list[dict]) -> None:
    """Some ranks would keep eight bits and others not, and the blocks of all would make no tensor."""
    for weight in (each for group in groups for each in group["params"]):
        if not isinstance(weight, DTensor) or weight.numel() < SMALLEST:
            continue
        sharded = [n for n, each in enumerate(weight.placements) if not each.is_replicate()]
        parts = math.prod(weight.device_mesh.size(n) for n in sharded)
        by_rows = all(weight.placements[n].is_shard(0) for n in sharded)
        if not by_rows or weight.shape[0] % parts:
            raise MachineError(
                "states of eight bits want every weight split evenly by its rows",
                where='optimizer = "adamw8bit"',
                wanted=f"a first dimension that {parts} ranks divide",
                got=f"a weight of shape {tuple(weight.shape)} as {weight.placements}",
                do='choose another number of processes, or optimizer = "adamw"',
            )
