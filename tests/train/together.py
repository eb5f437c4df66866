"""Very small models trained by several processes; run as a script, read by test_parallel.py.

    python together.py FOLDER CASE:PROCESSES[:NAME=N,...] ...      prints {argument: what came of it}

NAME: a dimension of the layout; checkpointing=1; in=NAME, the run's folder, which a later argument may go
on in; stop=N, a SIGTERM to the last rank in step N.

Ranks are forked from a process that has imported torch and run none of it: an import costs seconds.
"""

import hashlib
import json
import os
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import torch
import torch._dynamo
import torch.distributed as dist
import torch.utils.tensorboard
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from endonym.core.console import Console
from endonym.core.context import Context, Layout
from endonym.methods.batch import Rows
from endonym.model.config import ModelConfig
from endonym.model.decoder import Decoder, initialise
from endonym.model.foreign import ForeignLM
from endonym.stages.training import BalanceConfig, NextTokens
from endonym.train import loop, optim
from endonym.train.config import TrainConfig
from endonym.train.probe import Probe
from endonym.train.stop import Stopped

VOCABULARY, STEPS, ROWS, TIME = 29, 20, 8, 12

SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2,
}  # fmt: skip
EXPERTS = {"count": 4, "chosen": 2, "width": 8, "router": "sigmoid"}


def model(**more):
    return initialise(Decoder(ModelConfig.read({**SIZES, **more}, "test")), 0)


def rows(step: int) -> Rows:
    """Two documents a row and padding; after n comes 3 n + 1, mostly."""
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(0, VOCABULARY, (ROWS, TIME), generator=generator)
    border = torch.randint(3, TIME - 3, (ROWS, 1), generator=generator)
    place = torch.arange(TIME).expand(ROWS, TIME)
    segments = 1 + (place >= border).long()
    segments[1::3, -2:] = 0
    positions = torch.where(place >= border, place - border, place)
    weights = (torch.rand(ROWS, TIME, generator=generator) < 0.8).float() * (segments > 0)
    return Rows(tokens, (3 * tokens + 1) % VOCABULARY, weights, segments, positions)


def foreign():
    """transformers' own module, which sees documents of unlike length one after another."""
    torch.manual_seed(0)
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    sizes = {name: SIZES[name] for name in names} | {"num_attention_heads": 2, "dtype": "float32"}
    return ForeignLM(GPTNeoXForCausalLM(GPTNeoXConfig(**sizes)))


class Loader:
    identity = "3 n + 1"

    def rows(self, step: int, part: tuple[int, int] = (0, 1)) -> Rows:
        number, count = part
        size = ROWS // count
        return rows(step).each(lambda each: each[number * size : (number + 1) * size])


class Live(Loader):
    """Counts a prediction by how wrong the model, as it stands, still is: 1 - p(label)."""

    def sample(self) -> Rows:
        return rows(0)

    def ready(self, trainee) -> None:
        self.sampling = trainee.sampling
        self.part = trainee.ranks.part

    def rows(self, step: int, part: tuple[int, int] = (0, 1)) -> Rows:
        assert part == self.part
        found = super().rows(step, part)
        with self.sampling() as net:
            assert not net.training and not torch.is_grad_enabled()
            assert not isinstance(net.head, torch.distributed.tensor.DTensor)
            hidden = net(found.tokens, positions=found.positions, segments=found.segments)
            known = net.logits(hidden).softmax(-1).gather(-1, found.labels[..., None])[..., 0]
        return replace(found, weights=found.weights * (1 - known))


class Objective(NextTokens):
    """by_sequence is a mean over the rows of a pass, so it is the same only where the passes are."""

    def __init__(self, by_sequence: float = 1e-2, stop: int | None = None):
        super().__init__(BalanceConfig(by_sequence=by_sequence, bias_rate=1e-2), 0.3)
        self.steps, self.stop = 0, stop

    def end_step(self, model, learned: bool) -> None:
        super().end_step(model, learned)
        self.steps += 1
        last = int(os.environ.get("RANK", 0)) == int(os.environ.get("WORLD_SIZE", 1)) - 1
        if self.steps == self.stop and last:
            os.kill(os.getpid(), signal.SIGTERM)


def head(net) -> dict[str, float]:
    assert not isinstance(net.head, torch.distributed.tensor.DTensor)
    return {"squares": float(net.head.double().square().sum())}


def run(
    net, settings: TrainConfig, context: Context, stop=None, by_sequence=1e-2, loader=Loader
) -> dict:
    """What train() gives and leaves behind."""
    objective = Objective(by_sequence, stop)
    try:
        figures = loop.train(
            net, objective, loader(), settings, context, probes=[Probe("head", head, every=8)]
        )
    except Stopped as stopped:
        return {"stopped": stopped.signum, "step": stopped.step}
    weights = net.state_dict()
    bits = b"".join(each.detach().numpy().tobytes() for each in weights.values())
    log = [
        json.loads(line) for line in (context.scratch / "metrics.jsonl").read_text().splitlines()
    ]
    return {
        "losses": [each["loss"] for each in log if "loss" in each],
        "norms": [each["grad_norm"] for each in log if "grad_norm" in each],
        "log": hashlib.sha256((context.scratch / "metrics.jsonl").read_bytes()).hexdigest(),
        "sha256": hashlib.sha256(bits).hexdigest(),
        "names": sorted(weights),
        "resumed_at": figures["resumed_at"],
        "tokens": figures["tokens"],
        "probes": figures["probes"],
    }


def config(**changes) -> TrainConfig:
    plain = {"steps": STEPS, "learning_rate": 1e-2, "precision": "float32"}
    return TrainConfig(**{**plain, **changes})


SKIPS = {"skips": [[1, -1]], "skip_learned": True, "skip_alpha": 0.5}
MUON, EMA = {"optimizer": "muon"}, {"ema": 0.9}
LORA = {"adapter": {"rank": 4, "dropout": 0.0}}
CASES = {
    "tied": lambda *how: run(model(tie_word_embeddings=True), config(), *how),
    "untied": lambda *how: run(model(), config(**EMA), *how),
    "skips": lambda *how: run(model(**SKIPS, mtp_modules=1), config(), *how),
    "experts": lambda *how: run(model(experts=EXPERTS), config(), *how),
    "shared": lambda *how: run(model(experts={**EXPERTS, "shared": 1}), config(), *how, 0.0),
    "lora": lambda *how: run(model(), config(**LORA), *how),
    "foreign": lambda *how: run(foreign(), config(), *how),
    "muon": lambda *how: run(model(experts=EXPERTS), config(**MUON), *how),
    "live": lambda *how: run(model(tie_word_embeddings=True), config(), *how, loader=Live),
    "live_lora": lambda *how: run(model(), config(**LORA), *how, loader=Live),
}


def start(size: int, work, port: int, out: Path, timeout: int = 120) -> list[int]:
    """Forks `size` ranks of `work`, each of which writes what it gives to out/<rank>.json."""
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            status = 70
            try:
                signal.alarm(timeout)
                os.environ |= {
                    "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank),
                    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                    "TORCHELASTIC_USE_AGENT_STORE": "True",
                }  # fmt: skip
                torch.set_num_threads(1)
                (out / f"{rank}.json").write_text(json.dumps(work()))
                status = 0
            except SystemExit as stop:
                status = stop.code
            except BaseException:
                (out / f"{rank}.error").write_text(traceback.format_exc())
            finally:
                os._exit(status)
        children.append(child)
    return children


def together(size: int, work, out: Path) -> dict:
    """The main rank's answer."""
    out.mkdir(parents=True)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    children = start(size, work, store.port, out)
    for child in children:
        os.waitpid(child, 0)
    errors = [each.read_text() for each in sorted(out.glob("*.error"))]
    assert not errors, errors[0]
    return json.loads((out / "0.json").read_text())


def job(text: str, folder: Path, number: int):
    """What an argument of the command line means, and for how many processes."""
    case, size, *more = text.split(":")
    if case.endswith("lora"):
        import peft  # noqa: F401, once here and not in each fork
    named = dict(each.split("=") for each in more[0].split(",")) if more else {}
    scratch = folder / f"run-{named.pop('in', number)}"
    scratch.mkdir(exist_ok=True)
    stop = int(named.pop("stop", 0)) or None
    offload = bool(named.pop("offload", 0))
    if offload:
        # What moves tensors to a GPU and back is torch's; all around it is the same without one.
        optim._refuse_without_offload = lambda model: None
    here = Context(
        scratch=scratch,
        offload=offload,
        threads=1,
        rows_per_device=2,
        checkpoint_seconds=1e9,
        console=Console(quiet=True),
        processes=None,
        checkpointing=bool(named.pop("checkpointing", 0)),
        layout=Layout(**{name: int(value) for name, value in named.items()}),
    )
    return lambda: CASES[case](here, stop), int(size)


if __name__ == "__main__":
    folder, found = Path(sys.argv[1]), {}
    for number, text in enumerate(sys.argv[2:]):
        work, size = job(text, folder, number)
        found[text] = together(size, work, folder / f"told-{number}")
    print(json.dumps(found))
