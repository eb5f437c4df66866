"""A running average of the weights that learn, beside the weights that are trained.

    a_t = a_{t-1} + (1 - d) / (1 - d^t) (w_t - a_{t-1})
        = sum_{s=1..t} (1 - d) d^{t-s} w_s  /  (1 - d^t)

w_s: the weights after step s, d: the decay, t: the updates so far. This is the exponential average
with the bias of its start taken out as Adam does it (arXiv:1412.6980, section 3): the weights of
before the first step have no part in it, where d^t of them would otherwise remain, which in a run of
a few thousand steps and d = 0.999 is not nothing. arXiv:2411.18704 measures what such averages bring
and starts from the weights themselves; for d^t near zero the two are one.

Only parameters that learn are averaged. Buffers (the routers' selection biases) are the model's own:
they are counts of the latest steps and belong to no average.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class Ema:
    """The average of one model's weights, in their dtype, on their device and sharded as they are."""

    def __init__(self, model: nn.Module, decay: float):
        self._decay = decay
        self._updates = torch.zeros((), dtype=torch.int64)
        self._average = {name: each.detach().clone() for name, each in _learning(model)}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes the weights in; to be called after each step that changed them."""
        self._updates += 1
        share = (1 - self._decay) / (1 - self._decay ** int(self._updates))
        averages, weights = self._pairs(model)
        torch._foreach_lerp_(averages, weights, share)

    def tensors(self) -> dict[str, Tensor]:
        """All that must survive, by name: the tensors themselves, which a checkpoint is put back into."""
        return {"ema_updates": self._updates} | {
            f"ema/{name}": each for name, each in self._average.items()
        }

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Inside, the model's weights are the average; before the first update, what they were.

        The two are exchanged in place, one parameter at a time, so that it takes no more memory; until
        the end tensors() has the trained weights, and nothing may be saved or updated.
        """
        self._exchange(model)
        try:
            yield
        finally:
            self._exchange(model)

    @torch.no_grad()
    def give(self, model: nn.Module) -> None:
        """The model's weights become the average, for good."""
        averages, weights = self._pairs(model)
        torch._foreach_copy_(weights, averages)

    @torch.no_grad()
    def _exchange(self, model: nn.Module) -> None:
        for average, weight in zip(*self._pairs(model)):
            kept = average.clone()
            average.copy_(weight)
            weight.copy_(kept)

    def _pairs(self, model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        found = dict(model.named_parameters())
        averages = [_local(each) for each in self._average.values()]
        return averages, [_local(found[name].detach()) for name in self._average]


def _learning(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, each) for name, each in model.named_parameters() if each.requires_grad)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
