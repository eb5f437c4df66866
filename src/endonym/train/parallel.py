"""One model in several processes: who holds what, and how their gradients become one.

    replicate x shard x context processes, the main one first; `expert` divides shard

    rows       of a step: each of replicate x shard has its own part; context ones share theirs
    weights    float32, divided along their first dimension among shard x context (FSDP2, fully_shard);
               gathered block by block for the forward and the backward pass, freed again
    experts    with expert = n, each of n neighbours holds N / n of them whole (model/exchange.py)
    gradients  the SUM over all processes, each then holding its part: the loop divides by the total
               weight, so the mean does not depend on the number of processes, rounding apart

Products in bfloat16: on a GPU the weights travel as bfloat16 and gradients are summed in float32;
routers travel in float32, since a choice of experts should not hang on the last bits. On a CPU autocast
does what it does in one process.

A block is one unit of gathering; what belongs to none (embedding, final norm, head) is the root's, and
the root is `Stepping`: model and objective together. So all of it is whole wherever the objective reads
it, and a chunked loss (methods/nll.py) sees plain tensors. Numbers without a dimension (skip_alpha)
cannot be divided: every process holds them, and their gradients are summed.

A model that runs as transformers' own module is one unit altogether: it passes its layers as often as
the rows of a process have documents of unlike length (model/foreign.py), and processes that gather layer
by layer would wait for one another for ever. Weights are then whole during a step; gradients between
steps and the optimizer's state are still divided.
"""

import copy
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor

from endonym.core.context import Context, Layout
from endonym.core.errors import MachineError, RecipeError
from endonym.methods.batch import Loss, Rows
from endonym.model.decoder import Decoder
from endonym.model.exchange import share_experts, share_time, slice_rows
from endonym.model.experts import MoE

DIMENSIONS = ("replicate", "rest", "context", "expert")
"""Of the mesh. The processes that share a copy of the weights are rest x context x expert, neighbours."""

PATIENCE = timedelta(days=7)
"""How long a barrier waits: while the main process tokenises a corpus, say. Whoever started the
processes ends them when one of them dies."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; alone by default. Every method with a result must
    be called by all of them, in the same order."""

    rank: int = 0
    size: int = 1
    layout: Layout = field(default_factory=lambda: Layout(shard=1))
    mesh: DeviceMesh | None = None

    @property
    def main(self) -> bool:
        """The one that writes logs and shows progress."""
        return self.rank == 0

    @property
    def part(self) -> tuple[int, int]:
        """(r, n): this process takes part r of n of each step's rows."""
        around, expert = divmod(self.rank, self.layout.expert)
        number = around // self.layout.context * self.layout.expert + expert
        return number, self.size // self.layout.context

    @property
    def slice(self) -> tuple[int, int]:
        """(r, n): and of these rows slice r of n of the time."""
        return self.rank // self.layout.expert % self.layout.context, self.layout.context

    def sum(self, tensor: Tensor) -> Tensor:
        """Over all processes, each of which has seen other tokens."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def largest(self, number: int) -> int:
        """Of all processes' numbers."""
        if self.size == 1:
            return number
        found = torch.tensor(number)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def any(self, flag: bool) -> bool:
        """Whether it is true in any process."""
        return bool(self.largest(int(flag)))

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def barrier(self) -> None:
        """Waits for all processes, however long one of them takes."""
        if self.size == 1:
            return
        store = dist.distributed_c10d._get_default_store()
        arrived = store.add("arrived", 1)
        number = (arrived - 1) // self.size  # nobody passes a barrier alone, so it has these `size`
        if arrived % self.size == 0:
            store.set(f"barrier {number}", b"all are here")
        store.wait([f"barrier {number}"], PATIENCE)


class Left(SystemExit):
    """A rank that is not the main one has done its part; what follows is the main one's alone."""

    def __init__(self) -> None:
        super().__init__(0)


def ranks(context: Context) -> Ranks:
    """This process among context.processes, as RANK and WORLD_SIZE say (train/launch.py sets them).

    The process group and the mesh are made by the first call. RecipeError where the layout does not fit.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        if (context.processes or 1) > 1:
            raise MachineError(
                "this process was to be one of several, and nobody has started it as such",
                wanted=f"{context.processes} processes",
                got="1",
                do="call train.launch.spread, or run the recipe with --nproc",
            )
        context.layout.filled(1)
        if not context.offload:
            return Ranks()  # else FSDP does it, for a group of one
    cuda = context.device.startswith("cuda")
    return _group(context.layout.filled(size), context.device if cuda else "cpu")


@cache
def _group(layout: Layout, device: str) -> Ranks:
    if layout.shard % layout.expert:
        raise RecipeError(
            "the experts cannot be divided among the processes",
            where="--layout",
            wanted=f"expert: a number that divides shard = {layout.shard}",
            got=layout.expert,
        )
    cuda = device != "cpu"
    if cuda:
        torch.cuda.set_device(device)
    alone = {} if "RANK" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", **alone)
    sizes = (layout.replicate, layout.shard // layout.expert, layout.context, layout.expert)
    mesh = init_device_mesh("cuda" if cuda else "cpu", sizes, mesh_dim_names=DIMENSIONS)
    return Ranks(dist.get_rank(), dist.get_world_size(), layout, mesh)


class Stepping(nn.Module):
    """Model and objective as one module, so that what the objective reads of the model is whole.

    step = Stepping(model, objective);  step(rows) -> Loss
    step.inside(measure) -> measure(model), for whatever else reads the model between two steps
    """

    def __init__(self, model: nn.Module, objective: Callable[[nn.Module, Rows], Loss]):
        super().__init__()
        self.model = model
        # In tuples, so that neither an objective that is a module nor the copy is a part of this one.
        self._objective = (objective,)
        self._plain: tuple[nn.Module, ...] = ()
        self._slice = (0, 1)

    def __call__(self, rows: Rows) -> Loss:
        if self._slice[1] > 1:
            rows = slice_rows(rows, *self._slice)

        # The parts one by one: FSDP looks for the tensors in what forward gives.
        def parts(model: nn.Module) -> tuple[Tensor, Tensor | float, dict[str, float]]:
            loss = self._objective[0](model, rows)
            return loss.value, loss.weight, loss.figures

        value, weight, figures = super().__call__(parts)
        if self._plain and torch.is_grad_enabled():
            assert value.requires_grad, (
                "a loss without gradient would leave the other ranks waiting"
            )
        return Loss(value, weight, figures)

    def inside(self, function: Callable[[nn.Module], Any]) -> Any:
        """function(model) without gradient, with the root's weights whole; all ranks must call it.

        The time axis is not shared meanwhile: what the function gives the model are whole rows.
        """
        slices = getattr(self.model, "slices", None)
        try:
            if slices is not None:
                self.model.slices = None
            with torch.no_grad():
                return super().__call__(function)
        finally:
            if slices is not None:
                self.model.slices = slices
            if self._plain:
                # Kept until a backward pass that does not come, they would be stale after the next step.
                self.reshard()

    def forward(self, function: Callable[[nn.Module], Any]) -> Any:
        return function(self.model)

    def whole(
        self, ranks: Ranks, to: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> nn.Module | None:
        """The model as one process holds it, its weights gathered in the main rank's memory; None in
        the others. All ranks must call it.

        to: on this device of every rank instead, its parameters in `dtype`, for sampling.
        """
        if not self._plain:
            return self.model
        keeps = ranks.main or to is not None
        state, seen = {}, {}
        buffers = {name for name, _ in self.model.named_buffers()}
        for name, tensor in self.model.state_dict().items():
            if id(tensor) not in seen:  # tied weights once
                full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
                kind = full.dtype if dtype is None or name in buffers else dtype
                seen[id(tensor)] = (tensor, full.to(to or "cpu", kind) if keeps else None)
            state[name] = seen[id(tensor)][1]
        if not keeps:
            return None
        plain = copy.deepcopy(self._plain[0])
        plain.load_state_dict(state, assign=True)
        return plain

    def end(self, ranks: Ranks) -> None:
        """After the last step: the main rank's model is whole and no longer divided; the others leave.

        Raises Left in these.
        """
        whole = self.whole(ranks)
        if not ranks.main:
            raise Left
        if whole is not self.model:
            for name, child in whole.named_children():
                setattr(self.model, name, child)
            for name, parameter in whole.named_parameters(recurse=False):
                setattr(self.model, name, parameter)
            for name, buffer in whole.named_buffers(recurse=False):
                setattr(self.model, name, buffer)


def _quiet() -> None:
    """torch's warnings to whoever writes its own collectives, once a process: nothing a user could do."""
    # Of an expert layer as a unit: nobody changes its output in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    # Weights divided twice (experts) are gathered in two steps.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)


def shard(
    step: Stepping,
    ranks: Ranks,
    device: torch.device,
    dtype: torch.dtype,
    *,
    checkpointing: bool = False,
    offload: bool = False,
) -> None:
    """Puts the model on its device, divided among the ranks; in one process it stays one.

    dtype: of the products. checkpointing: compute each block anew in the backward pass. offload: keep
    weights, gradients and the optimizer's state in the host's memory.
    """
    model = step.model
    if checkpointing:
        _checkpoint(model)
    if ranks.mesh is None:
        model.to(device)
        return
    _refuse_indivisible(model, ranks.layout)
    _quiet()
    step._plain, step._slice = (_without_weights(model),), ranks.slice
    mesh, layout = ranks.mesh, ranks.layout
    if layout.context > 1:
        share_time(model, mesh["context"].get_group())
    if layout.expert > 1:
        share_experts(model, mesh["expert"])
    copies = _copies(mesh, ("rest", "context", "expert"), "shard")
    others = _copies(mesh, ("rest", "context"), "rest_context") if layout.expert > 1 else None
    low = device.type == "cuda" and dtype != torch.float32
    policy = {
        # Inputs are left to autocast, which the loop enters as in one process.
        "mp_policy": MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
        if low
        else MixedPrecisionPolicy(),
        "offload_policy": CPUOffloadPolicy(device.type == "cuda") if offload else OffloadPolicy(),
    }
    exact = {**policy, "mp_policy": MixedPrecisionPolicy()}
    for module in list(model.modules()):
        if isinstance(module, MoE):
            if low or others is not None:
                _divide(module.router, copies, exact)
            if others is not None:
                if module.shared is not None:
                    _divide(module.shared, copies, policy)
                _divide(module, others, policy)  # what is left of it: its experts
    for block in blocks(model):
        _divide(block, copies, policy)
    scalars = {each for each in model.parameters() if each.dim() == 0}
    for each in scalars:
        each.data = each.data.to(device)
        if each.requires_grad:
            each.register_hook(ranks.sum)
    _divide(step, copies, {**policy, "ignored_params": scalars})


def _refuse_indivisible(model: nn.Module, layout: Layout) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            raise MachineError(
                "weights of four bits cannot be divided among processes",
                where=name,
                got=parameter.dtype,
                do='train with --nproc 1, or with adapter.method = "lora"',
            )
    if layout.expert > 1 and not any(isinstance(each, MoE) for each in model.modules()):
        raise RecipeError(
            "there are no experts to be divided among processes",
            where="--layout",
            wanted="a decoder of ours with experts, or expert = 1",
            got=f"expert = {layout.expert}",
        )


def blocks(model: nn.Module) -> list[nn.Module]:
    """The units of gathering: decoder layers and MTP modules. None in transformers' own modules."""
    if not isinstance(model, Decoder):
        return []
    return [*model.model.layers, *getattr(model, "mtp", [])]


def _checkpoint(model: nn.Module) -> None:
    if isinstance(model, Decoder):
        model.checkpointing = True
    else:
        model.module.gradient_checkpointing_enable({"use_reentrant": False})


def _copies(mesh: DeviceMesh, dimensions: tuple[str, ...], name: str) -> DeviceMesh:
    """(replicate, what shares a copy): one dimension where there is a single copy."""
    flat = mesh[dimensions]._flatten(name)
    return flat if mesh["replicate"].size() == 1 else mesh["replicate", name]


def _divide(module: nn.Module, mesh: DeviceMesh, policy: dict[str, Any]) -> None:
    fully_shard(module, mesh=mesh, **policy)
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)  # gloo has no scaled sums
    # An expert, or a module, that no row of this rank used has a gradient elsewhere.
    module.set_reduce_scatter_unused_params(True, recurse=False)


def _without_weights(model: nn.Module) -> nn.Module:
    """A copy whose parameters and saved buffers have shapes but no memory."""
    saved = {id(tensor) for tensor in model.state_dict(keep_vars=True).values()}
    memo = {
        id(tensor): nn.Parameter(tensor.to("meta"), tensor.requires_grad)
        if isinstance(tensor, nn.Parameter)
        else tensor.to("meta")
        for tensor in [*model.parameters(), *model.buffers()]
        if id(tensor) in saved
    }
    return copy.deepcopy(model, memo)
