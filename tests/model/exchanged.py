"""One model in one process and shared by several: the same losses and gradients. Run as a script:

python exchanged.py CASE PROCESSES      prints "same", or fails
"""

import os
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from endonym.methods.batch import Rows
from endonym.methods.nll import nll
from endonym.model.config import ModelConfig
from endonym.model.exchange import share_experts, share_time, slice_rows
from endonym.model.hf import new

SIZES = dict(
    vocab_size=37, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64,
)  # fmt: skip
EXPERTS = dict(count=8, chosen=3, width=16, router="sigmoid", shared=1)
CASES = {
    "time": dict(qk_norm=True),
    "time, windows": dict(sliding_window=5, layer_types=["sliding_attention", "full_attention"] * 2),
    "time, more processes than key heads": dict(num_key_value_heads=1),
    "time, stretched": dict(
        max_position_embeddings=16,
        rope_scaling={
            "type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 64
        }
    ),
    "time, experts in each": dict(experts=EXPERTS),
    "experts": dict(experts=EXPERTS),
    "experts, one with all the tokens": dict(experts=EXPERTS),
}  # fmt: skip
"""Names say what is shared among the processes: of time or of experts."""


def rows(packed: bool = True) -> Rows:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, 37, (4, 22), generator=generator)
    segments = torch.tensor([[1] * 9 + [2] * 4 + [3] * 7 + [0] * 2, [1] * 22]).repeat(2, 1)
    if not packed:
        segments = torch.ones_like(segments)
    positions = torch.stack(
        [torch.cat([torch.arange(int((r == n).sum())) for n in r.unique_consecutive()]) for r in segments]
    )  # fmt: skip
    weights = torch.rand(4, 22, generator=generator) * (segments > 0)
    return Rows(tokens, tokens.roll(-1, 1), weights, segments, positions)


def model(case: str):
    sizes = {**SIZES, **CASES[case]}
    if "layer_types" in sizes:
        sizes["layer_types"] = sizes["layer_types"][:3]
    made = new(ModelConfig.read(sizes, case), 0)
    with torch.no_grad():
        for number, weight in enumerate(made.parameters()):
            weight.add_(
                torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)) / 9
            )
        if case.endswith("all the tokens"):
            for block in made.model.layers:
                block.mlp.router.bias[:3] += 10.0
    return made


def learn(lm, given: Rows):
    hidden = lm(given.tokens, positions=given.positions, segments=given.segments)
    loss = nll(hidden, lm.head, given.labels, given.weights)
    loss.value.backward()
    return loss.value.detach()


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def compare(case: str, rank: int, size: int) -> None:
    for packed in (True, False):
        given = rows(packed)
        alone, shared = model(case), model(case)
        wanted = learn(alone, given)
        if case.startswith("time"):
            share_time(shared, dist.group.WORLD)
            got = learn(shared, slice_rows(given, rank, size))
        else:
            share_experts(shared, init_device_mesh("cpu", (size,)))
            got = learn(shared, given.split(4 // size)[rank])
        dist.all_reduce(got)
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
        gradients = dict(alone.named_parameters())
        for name, parameter in shared.named_parameters():
            grad, right = parameter.grad, gradients[name].grad
            if hasattr(parameter, "full_tensor"):
                # The tokens of all processes came here: nothing is left to sum.
                grad = torch.zeros_like(parameter) if grad is None else grad
                grad = whole(grad)
            else:
                grad = torch.zeros_like(parameter) if grad is None else grad
                dist.all_reduce(grad)
            right = torch.zeros_like(grad) if right is None else right
            torch.testing.assert_close(
                grad, right, rtol=1e-4, atol=2e-5, msg=lambda m, name=name: f"{name}: {m}"
            )


def main(case: str, size: int) -> None:
    folder = tempfile.mkdtemp()
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            try:
                dist.init_process_group(
                    "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size
                )
                compare(case, rank, size)
                os._exit(0)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
        children.append(child)
    status = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    Path(folder, "store").unlink(missing_ok=True)
    os.rmdir(folder)
    assert status == [0] * size, status
    print("same")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], int(sys.argv[2]))
