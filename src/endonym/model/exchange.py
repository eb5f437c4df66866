"""One forward pass shared by several processes: the time axis of the rows, and the experts.

Both are exchanges between processes (all-to-all) around work that stays as it is, so that every
equation of the decoder holds unchanged:

    time     process r of c holds slice r of every row. Before attention the slices are exchanged for
             heads: each process then has all of the time and H / c of the heads, runs the ordinary
             attention over the ordinary documents, and gives the heads back.
             DeepSpeed-Ulysses, arXiv:2309.14509, section 3
    experts  process r of n holds N / n of the experts of each layer. Tokens travel to the processes
             that hold their experts, and the results travel back. GShard, arXiv:2006.16668, section
             3; dropless here as within one process, so the parts that travel are of unequal length

Shapes: B rows, T time, t = T / c, D width, H query heads, K key/value heads, C channels of a head, M
tokens, N experts, k experts of a token.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from endonym.core.errors import RecipeError
from endonym.methods.batch import Rows
from endonym.model.decoder import Decoder
from endonym.model.experts import MoE


@dataclass(frozen=True)
class TimeSlices:
    """The time axis of all rows divided evenly among the processes of `group`, in their order."""

    group: dist.ProcessGroup

    @property
    def count(self) -> int:
        return self.group.size()

    def whole(self, x: Tensor) -> Tensor:
        """[B, T] of every process's [B, t], without gradient: positions, segments, tokens."""
        parts = [torch.empty_like(x) for _ in range(self.count)]
        dist.all_gather(parts, x.contiguous(), group=self.group)
        return torch.cat(parts, 1)

    def own(self, x: Tensor) -> Tensor:
        """This process's [B, t] of a whole [B, T]."""
        return x.chunk(self.count, 1)[self.group.rank()]

    def to_heads(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, T, H/c, C] and twice [B, T, K/c, C] out of this slice's [B, t, H, C], [B, t, K, C].

        Fewer key heads than processes are repeated, so that each has the one its queries share.
        """
        short = self.count // k.shape[2]
        if short > 1:
            k, v = k.repeat_interleave(short, 2), v.repeat_interleave(short, 2)
        sizes = [x.shape[2] // self.count for x in (q, k, v)]
        # By destination: [B, t, c, h, C], the heads of q, k and v that go there side by side.
        parts = torch.cat([x.unflatten(2, (self.count, -1)) for x in (q, k, v)], 3)
        came = self._swap(parts.permute(2, 0, 1, 3, 4))
        return came.transpose(0, 1).flatten(1, 2).split(sizes, 2)

    def to_times(self, x: Tensor) -> Tensor:
        """This slice's [B, t, H, C] out of [B, T, H/c, C]."""
        came = self._swap(x.unflatten(1, (self.count, -1)).transpose(0, 1))
        return came.permute(1, 2, 0, 3, 4).flatten(2, 3)

    def _swap(self, parts: Tensor) -> Tensor:
        """parts [c, ...]: part r goes to process r; what came from r stands at r."""
        return _Exchange.apply(parts, None, None, self.group)


@dataclass(frozen=True)
class ExpertShares:
    """The experts of every layer divided evenly among the processes of `group`, in their order."""

    group: dist.ProcessGroup

    def travel(
        self, tokens: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor, tuple[list[int], list[int]]]:
        """Tokens sorted by expert [M, D] and how many each expert has [N] -> those of this process's
        own experts, sorted by expert, their counts, and what `home` needs.

        The tokens of one expert stand in the order of the processes they came from.
        """
        size, own = self.group.size(), len(counts) // self.group.size()
        theirs = torch.empty_like(counts)
        dist.all_to_all_single(theirs, counts.contiguous(), group=self.group)
        theirs = theirs.view(size, own)
        sent = counts.view(size, own).sum(1).tolist()
        got = theirs.sum(1).tolist()
        came = _Exchange.apply(tokens, got, sent, self.group)
        return _turned(came, theirs), theirs.sum(0), (sent, got, theirs)

    def home(self, done: Tensor, journey: tuple[list[int], list[int], Tensor]) -> Tensor:
        """The results [M, D] of the tokens that `travel` sent, in the order it was given them."""
        sent, got, theirs = journey
        return _Exchange.apply(_turned(done, theirs.t()), sent, got, self.group)


def _turned(x: Tensor, counts: Tensor) -> Tensor:
    """Runs of x, laid out by (a, b) with lengths counts [a, b], laid out by (b, a) instead."""
    lengths = counts.flatten()
    starts = lengths.cumsum(0) - lengths
    order = torch.arange(counts.numel(), device=x.device).view(counts.shape).t().flatten()
    # The place of each token: the start of its run, taken in the new order, and its step within it.
    moved = lengths[order]
    first = (moved.cumsum(0) - moved).repeat_interleave(moved)
    step = torch.arange(len(x), device=x.device) - first
    return x[starts[order].repeat_interleave(moved) + step]


class _Exchange(torch.autograd.Function):
    """All-to-all along the first dimension; the gradient goes the same way back.

    got, sent: rows from and to each process; None where all are one part of equal size each.
    """

    @staticmethod
    def forward(ctx, x, got, sent, group):
        ctx.sizes, ctx.group = (sent, got), group
        return _exchange(x, got, sent, group)

    @staticmethod
    def backward(ctx, grad):
        return _exchange(grad, *ctx.sizes, ctx.group), None, None, None


def _exchange(x: Tensor, got: list[int] | None, sent: list[int] | None, group) -> Tensor:
    shape = x.shape if got is None else (sum(got), *x.shape[1:])
    out = torch.empty(shape, dtype=x.dtype, device=x.device)
    dist.all_to_all_single(out, x.contiguous(), got, sent, group=group)
    return out


def slice_rows(rows: Rows, number: int, count: int) -> Rows:
    """Slice `number` of `count` of the time of every row, padded on the right to whole slices.

    segments and positions keep their meaning within the whole row: the model asks its neighbours
    for the rest (TimeSlices.whole).
    """
    missing = -rows.tokens.shape[1] % count

    def part(whole: Tensor) -> Tensor:
        padding = whole.new_zeros(len(whole), missing, *whole.shape[2:])
        return torch.cat([whole, padding], 1).chunk(count, 1)[number]

    return rows.each(part)


def share_time(model: nn.Module, group: dist.ProcessGroup) -> None:
    """From now on `model` takes this process's slice of the rows (slice_rows) and gives its hidden states.

    RecipeError where the heads cannot be divided, or where something looks ahead over the border of
    a slice: MTP modules, and models that run as transformers' own.
    """
    count = group.size()
    if not isinstance(model, Decoder):
        raise RecipeError(
            "the time axis of a model that runs as transformers' own module cannot be shared",
            where="layout.context",
            wanted="a family that runs natively",
            got=type(model).__name__,
        )
    config = model.config
    heads, keys = config.num_attention_heads, config.num_key_value_heads
    if heads % count or (keys % count and count % keys):
        raise RecipeError(
            "the heads cannot be divided among the processes that share the time axis",
            where="layout.context",
            wanted=f"a number that divides {heads} heads, and that divides {keys} key heads or is "
            "a multiple of them",
            got=count,
        )
    if config.mtp_modules:
        raise RecipeError(
            "multi-token prediction looks over the border of a slice of time",
            where="layout.context",
            wanted="a model without MTP modules, or context = 1",
            got=f"{config.mtp_modules} MTP modules",
        )
    model.slices = TimeSlices(group)


def share_experts(model: nn.Module, mesh: DeviceMesh) -> None:
    """From now on this process holds its share of every layer's experts, along the mesh's one dimension.

    The stacked weights become DTensors, divided along the experts, so that checkpoints and norms know
    the whole. RecipeError where the experts cannot be divided.
    """
    for module in model.modules():
        if not isinstance(module, MoE):
            continue
        count = module.router.experts.count
        if count % mesh.size():
            raise RecipeError(
                "the experts cannot be divided among the processes",
                where="layout.expert",
                wanted=f"a number that divides {count} experts",
                got=mesh.size(),
            )
        for name, weight in list(module.experts.named_parameters()):
            own = weight.detach().chunk(mesh.size(), 0)[mesh.get_local_rank()].clone()
            shared = DTensor.from_local(own, mesh, [Shard(0)], run_check=False)
            module.experts.register_parameter(name, nn.Parameter(shared, weight.requires_grad))
        module.shares = ExpertShares(mesh.get_group())
