"""Muon: the momentum of a hidden matrix, orthogonalised, is its step.

    M <- mu M + (1 - mu) G          U = mu M + (1 - mu) G (Nesterov) or M
    O = newton_schulz(U)            about the nearest (semi-)orthogonal matrix to U
    W <- W - lr ( 0.2 sqrt(max(A, B)) O + decay W )                    W, G: [A, B]

Keller Jordan, https://kellerjordan.github.io/posts/muon/; the factor and the decay are those of
Moonlight, arXiv:2502.16982, eq. 4: a step then has the root mean square 0.2 that AdamW's steps
tend to have, so that one learning rate serves both. K-EXAONE is trained with Muon (arXiv:2601.01739)
and states no more of it.

torch.optim.Muon does the same for matrices one by one and refuses stacks of experts [N, A, B], in
which every expert's matrix must be orthogonalised by itself. This one takes both, all matrices of
one shape in one product, and whole matrices of which a rank holds a part (DTensor). On matrices it
agrees with torch's (tests/train/test_muon.py).

The iteration takes 20 A + 10 A^2 / B operations a weight (A <= B), where each token of the step takes
6: much at a few thousand tokens a step, next to nothing at a million. Ranks that share a matrix share
that work.

A fused gate and up projection of experts [N, 2 F, D] counts as two matrices, as it does where a dense
MLP keeps them apart.
"""

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate

from endonym.model.experts import ExpertWeights
from endonym.train.layers import hidden_layers

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic a x + b x^3 + c x^5, steepest at zero: Keller Jordan's, as in torch."""

EPS = 1e-7

PIECE = 1 << 26
"""Elements orthogonalised at once, unless one parameter alone has more: 128 MiB in bfloat16."""


class Muon(torch.optim.Optimizer):
    """Over pairs of a parameter, [A, B] or [N, A, B], and of how many matrices its A rows are.

    momentum, nesterov: mu, and which U. ns_steps: rounds of the iteration. adjust: the factor above,
    or "original", Keller Jordan's sqrt(max(1, A / B)), which wants a rate of its own.
    dtype: of the iteration. bfloat16 is enough; a CPU without bf16 arithmetic needs five times as
    long for it as for float32 (256 x 768: 43 ms against 9).
    """

    def __init__(
        self,
        parameters: Iterable[tuple[Tensor, int]],
        *,
        lr: float,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adjust: str = "match_rms_adamw",
        dtype: torch.dtype = torch.bfloat16,
    ):
        pairs = list(parameters)
        settings = {"lr": lr, "weight_decay": weight_decay, "rate_share": 1.0}
        super().__init__([parameter for parameter, _ in pairs], settings)
        self._parts = {parameter: parts for parameter, parts in pairs}
        self._momentum, self._nesterov = momentum, nesterov
        self._steps, self._adjust, self._dtype = ns_steps, adjust, dtype

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            learning = [each for each in group["params"] if each.grad is not None]
            if not learning:
                continue
            for each in learning:
                if not self.state[each]:
                    self.state[each]["momentum_buffer"] = torch.zeros_like(each)
            momenta = [_local(self.state[each]["momentum_buffer"]) for each in learning]
            gradients = [_local(each.grad) for each in learning]
            torch._foreach_lerp_(momenta, gradients, 1 - self._momentum)
            torch._foreach_mul_(
                [_local(each) for each in learning], 1 - group["lr"] * group["weight_decay"]
            )
            for piece in self._pieces(learning):
                self._turn(piece, group["lr"])

    def _pieces(self, parameters: list[Tensor]) -> Iterable[list[Tensor]]:
        """Parameters whose matrices have one shape, lying or standing, PIECE elements at a time."""
        alike = defaultdict(list)
        for each in parameters:
            rows, columns = each.shape[-2] // self._parts[each], each.shape[-1]
            shape = min(rows, columns), max(rows, columns)
            alike[shape, each.device, _sharing(each)].append(each)
        for same in alike.values():
            piece, size = [], 0
            for each in same:
                if piece and size + each.numel() > PIECE:
                    yield piece
                    piece, size = [], 0
                piece.append(each)
                size += each.numel()
            yield piece

    def _turn(self, piece: list[Tensor], rate: float) -> None:
        wholes = [self._whole(each) for each in piece]
        lying = [_lying(each) for each in wholes]
        turned = self._turned(torch.cat(lying), _sharing(piece[0]))
        for parameter, whole, out in zip(piece, wholes, turned.split([len(x) for x in lying])):
            rows, columns = whole.shape[-2:]
            out = out.mT if rows > columns else out
            step = _part_of(parameter, out.reshape(self._shape_here(parameter, whole)))
            _local(parameter).add_(step, alpha=-rate * self._scale(rows, columns))

    def _turned(self, matrices: Tensor, sharing: tuple[DeviceMesh, int] | None) -> Tensor:
        """The matrices, which all ranks along an axis of the mesh hold, turned by them in equal parts."""
        if sharing is None:
            return newton_schulz(matrices, self._steps)
        mesh, axis = sharing
        share = -(-len(matrices) // mesh.size(axis))
        mine = matrices[mesh.get_local_rank(axis) * share :][:share]
        turned = matrices.new_zeros(share, *matrices.shape[1:])
        turned[: len(mine)] = newton_schulz(mine, self._steps)
        every = matrices.new_empty(share * mesh.size(axis), *matrices.shape[1:])
        dist.all_gather_into_tensor(every, turned, group=mesh.get_group(axis))
        return every[: len(matrices)]

    def _scale(self, rows: int, columns: int) -> float:
        if self._adjust == "original":
            return math.sqrt(max(1, rows / columns))
        return 0.2 * math.sqrt(max(rows, columns))

    def _whole(self, parameter: Tensor) -> Tensor:
        """The step before it is turned: [n, A, B], whole matrices, those of this rank."""
        update = self.state[parameter]["momentum_buffer"]
        if self._nesterov:
            update = torch.lerp(parameter.grad, update, self._momentum)
        update = update.to(self._dtype)
        if isinstance(update, DTensor):
            update = update.redistribute(placements=_whole_placements(update)).to_local()
        return update.reshape(-1, parameter.shape[-2] // self._parts[parameter], update.shape[-1])

    def _shape_here(self, parameter: Tensor, whole: Tensor) -> tuple[int, ...]:
        if parameter.ndim == 2:
            return tuple(parameter.shape)
        return (len(whole) // self._parts[parameter], *parameter.shape[1:])


def newton_schulz(matrices: Tensor, steps: int) -> Tensor:
    """About U V^T of each matrix U S V^T in [n, A, B], A <= B, in their dtype.

        X <- X / |X|,   then  X <- a X + (b A + c A A) X   with  A = X X^T,   `steps` times

    Its singular values end between about 0.7 and 1.2 and not at one, which does no harm.
    """
    a, b, c = COEFFICIENTS
    norm = torch.linalg.vector_norm(matrices, dim=(-2, -1), keepdim=True)
    x = matrices / norm.clamp(min=EPS)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def hidden_matrices(model: nn.Module) -> list[tuple[Tensor, int]]:
    """The parameters for Muon that learn, each with the number of matrices in its rows.

    Weights of the hidden linear layers (train/layers.py) and stacks of experts. Not embeddings, the
    head, routers, norms, biases, scalars, nor matrices of one row or column, whose step would only be
    normed.
    """
    found = {layer.weight: 1 for _, layer in hidden_layers(model)}
    for module in model.modules():
        own = dict(module.named_parameters(recurse=False))
        if isinstance(module, ExpertWeights):
            found |= {own["gate_up"]: 2, own["down"]: 1}
        else:
            found |= {each: 1 for each in own.values() if each.ndim == 3}
    return [(each, parts) for each, parts in found.items() if each.requires_grad]


def _lying(matrices: Tensor) -> Tensor:
    return matrices.mT if matrices.shape[-2] > matrices.shape[-1] else matrices


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _whole_placements(tensor: DTensor) -> list:
    """Every matrix whole on every rank, except that of a stack each rank may keep its own experts."""
    stack = tensor.ndim == 3
    return [each if stack and each.is_shard(0) else Replicate() for each in tensor.placements]


def _sharing(parameter: Tensor) -> tuple[DeviceMesh, int] | None:
    """The longest axis of the mesh along which all ranks hold the same whole matrices."""
    if not isinstance(parameter, DTensor):
        return None
    mesh, placements = parameter.device_mesh, _whole_placements(parameter)
    axes = [axis for axis, each in enumerate(placements) if each.is_replicate()]
    longest = max(axes, key=mesh.size, default=None)
    return None if longest is None or mesh.size(longest) == 1 else (mesh, longest)


def _part_of(parameter: Tensor, whole: Tensor) -> Tensor:
    """What of a step this rank holds of the parameter."""
    if not isinstance(parameter, DTensor):
        return whole
    step = DTensor.from_local(
        whole,
        parameter.device_mesh,
        _whole_placements(parameter),
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
    return step.redistribute(placements=parameter.placements).to_local()
