"""The decoder alone beside transformers, on the same folder of weights: a forward pass, a training pass
(forward, loss, backward) and greedy decoding at several batch sizes; dense and with experts.

Each kind of work is a comparison of its own, so that an arm's peak of memory is that of this work.
All logits are formed, texts fill their rows and prompts are of one length: what padding and long logits
cost is the business of sft and generation. bfloat16 is weights loaded so for reading and writing,
float32 weights under autocast for training, as both sides' users do it.

A wrong speed-up cannot be reported. transformers' float32 pass and its greedy answers are written down
before; every arm compares all logits, the loss with its gradients, or all tokens with them, in its
warm-up and again after each turn (outside of the clock), and ends with an error where they differ.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, material
from benchmarks.compare import Arm, Record, compare, ratios, spread
from benchmarks.turns import Turns
from endonym.core.errors import DataError

ROWS, ROW = 4, 512
"""Texts of a forward or training pass, and tokens of each."""
BATCHES = (1, 8, 32)
PROMPT, NEW_TOKENS = 32, 64
ANSWERS = 8
"""Answers of a turn at least: at smaller batches one batch after the other. Of fewer tokens the mean
that bfloat16 is judged by says little: one other expert in 200 tokens makes most of it."""
WARMUP = 2
"""Passes before the first turn: the first allocates, the second no longer does."""

TOLERANCE = {"forward": 1e-4, "training": 1e-4, "decoding": 0.0}
"""The largest difference from transformers' float32 in float32.

forward: of any logit. training: of loss, gradient's norm and the gradient of the embedding, through
    which all others go: the largest, relative. decoding: share of other tokens.
"""

SLACK = 3
"""bfloat16: how many times as far from float32 as transformers' own bfloat16 is. It depends on the
weights: a rounding may give a token another expert. Measured: 0.95 to 1.9 times. Logits: here the root
mean square of all, relative."""
REGRET = 0.1
"""Decoding in bfloat16, where near tokens change places: how much less than the best logit that of a
drawn token is, in float32 after the same tokens, on average, over the logits' root mean square (that of
any token: about 4). Turns must then repeat the warm-up's tokens."""


def run(
    shape: material.Shape, precision: str, threads: int, repeats: int, folder: Path, note, *,
    peers: bool = True, batches: tuple[int, ...] = BATCHES, new_tokens: int = NEW_TOKENS,
) -> dict[str, Any]:  # fmt: skip
    """The comparison of one shape and precision: a row for each device, kind of work and arm.

    Also on a GPU where there is one (never run so far: no machine of ours has one).
    """
    import torch

    words = material.tokenizer(shape.vocab_size)
    parameters = material.save_model(shape, folder, lively=True)
    note("the reference, by transformers in float32")
    texts = material.prompts(words, ROWS, shortest=ROW, longest=ROW)
    reference = Reference.write(folder, texts, words, max(*batches, ANSWERS), new_tokens, precision)
    spec = {"folder": str(folder), "precision": precision, "visible": None}
    works = [("forward", ROWS), ("training", ROWS), *(("decoding", batch) for batch in batches)]
    rows = []
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        if device == "cuda":
            spec["visible"] = os.environ.get("CUDA_VISIBLE_DEVICES")
        for work, batch in works:
            here = {**spec, "device": device, "work": work, "batch": batch}
            arms = _arms(shape, here, peers)
            turns = [{"key": "work"}, {"key": "check"}]
            records = compare(
                arms,
                turns,
                repeats=repeats,
                threads=threads,
                note=lambda text, work=work, batch=batch: note(f"{work} of {batch}: {text}"),
            )
            if work == "decoding" and precision != "float32":
                for arm in arms:
                    ready = records[arm.name].ready
                    ready["difference"] = reference.regret(ready["answers"])
                    reference.accept(ready["difference"], work, arm.name)
            tokens = max(batch, ANSWERS) * new_tokens if work == "decoding" else batch * ROW
            operations = None if work == "decoding" else _operations(folder, work, tokens)
            rows += _rows(here, arms, records, tokens, operations)
    return {
        "shape": shape.name,
        "parameters": parameters,
        "precision": precision,
        "threads": threads,
        "repeats": repeats,
        "tokens_of_a_pass": [ROWS, ROW],
        "prompt_tokens": PROMPT,
        "new_tokens": new_tokens,
        "tolerance": reference.most,
        "rows": rows,
    }


def _arms(shape: material.Shape, spec: dict[str, Any], peers: bool) -> list[Arm]:
    """Endonym, and the ways in which transformers does this work; of those the fastest counts."""
    arms = [Arm("Endonym", "benchmarks.model:endonym", spec)]
    ways: list[dict[str, str]] = [{}]
    if shape.experts:
        ways.append({"experts": "eager"})
        if spec["work"] == "decoding":  # it copies an expert's weights for each token that it reads
            ways.append({"experts": "batched_mm"})
    if spec["work"] == "decoding":
        ways.append({"cache": "static"})
    for way in ways if peers else []:
        name = ", ".join(["transformers", *(f"{value} {key}" for key, value in way.items())])
        arms.append(Arm(name, "benchmarks.model:transformers", {**spec, **way}))
    return arms


def _operations(folder: Path, work: str, tokens: int) -> float:
    """Floating-point operations of a pass over `tokens` in rows of ROW."""
    from endonym.model import hub
    from endonym.model.budget import flops_per_token

    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = hub.config_from(raw, where=folder)
    return tokens * flops_per_token(config, ROW, backward=work == "training")


def _rows(
    spec: dict[str, Any], arms: list[Arm], records: dict[str, Record], tokens: int,
    operations: float | None,
) -> list[dict[str, Any]]:  # fmt: skip
    ours = records[arms[0].name]
    rows = []
    for arm in arms:
        one = records[arm.name]
        cpu, wall = one.cpu["work"], one.wall["work"]
        peaks = [each.ready["device_peak_bytes"] or each.peak_bytes for each in (one, ours)]
        speed = one.ready["device_speed"]
        rows.append(
            {
                "device": spec["device"],
                "work": spec["work"],
                "batch": spec["batch"],
                "arm": arm.name,
                "cpu_seconds": spread(cpu),
                "tokens_per_cpu_second": spread([tokens / each for each in cpu]),
                "tokens_per_second": spread([tokens / each for each in wall]),
                "cpu_ratio": ratios(ours.cpu["work"], cpu),
                "wall_ratio": ratios(ours.wall["work"], wall),
                "peak_bytes": peaks[0],
                "before_bytes": one.ready["before_bytes"],
                "peak_ratio": peaks[0] / peaks[1],
                "difference": one.ready["difference"],
                "mfu": spread([operations / each / speed for each in wall])
                if operations and speed
                else None,
            }
        )
    return rows


# What the arms are held to


class Reference:
    """What transformers gives in float32 and, piece by piece, how far something else is from it.

    Written once into the folder; arms read it in pieces, so that it hardly adds to their memory.
    """

    def __init__(self, folder: str | Path, model: Any = None):
        self.folder, self.model = Path(folder), model
        told = json.loads((self.folder / "reference.json").read_text(encoding="utf-8"))
        self.texts, self.prompts, self.answers = told["texts"], told["prompts"], told["answers"]
        self.loss, self.norm = told["loss"], told["norm"]
        self.most: dict[str, float] = told["most"]

    @classmethod
    def write(
        cls, folder: Path, texts: list, words, count: int, new_tokens: int, precision: str
    ) -> "Reference":
        """Logits and gradients of `texts`, `count` prompts with their greedy answers, and what is
        asked of `precision`.

        Prompts in whose answers two tokens come closer than twice the tolerance of logits are passed
        over: of those that are left, arms within the tolerance must draw the very same tokens.
        """
        import torch
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        ids = torch.tensor(texts)
        loss, norm, gradient = _trained(model, ids)
        gradient.numpy().tofile(folder / "gradient.f32")
        with torch.inference_mode():
            model(input_ids=ids, use_cache=False).logits.numpy().tofile(folder / "logits.f32")
        told = {"texts": texts, "loss": loss, "norm": norm, "prompts": [], "answers": []}
        for seed in range(20):
            prompts = material.prompts(words, count, 1 + seed, shortest=PROMPT, longest=PROMPT)
            answers = _greedy(model, prompts, new_tokens, {})
            gaps = _top_two(model, prompts, answers)
            for prompt, answer, gap in zip(prompts, answers, gaps):
                if gap > 2 * TOLERANCE["forward"]:
                    told["prompts"].append(prompt)
                    told["answers"].append(answer)
            if len(told["prompts"]) >= count:
                break
        else:
            raise DataError(
                "too few prompts have an answer without a tie", got=len(told["prompts"])
            )
        _write(folder, told | {"most": TOLERANCE})
        if precision != "float32":
            here = cls(folder)
            with torch.autocast("cpu", torch.bfloat16):
                trained = _trained(model, ids)
            half = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
            with torch.inference_mode():
                logits = half(input_ids=ids, use_cache=False).logits
            most = {
                "forward": SLACK * here.of_logits(logits, precision),
                "training": SLACK * here.of_gradient(*trained),
                "decoding": REGRET,
            }
            _write(folder, told | {"most": most})
        model.zero_grad(set_to_none=True)
        return cls(folder, model)

    def accept(self, difference: float, work: str, who: str) -> None:
        """DataError unless the difference is allowed; one that is no number is not."""
        if not difference <= self.most[work]:
            raise DataError(
                "the arms do different work, so their speeds cannot be compared",
                where=f"{who}, {work}",
                wanted=f"a difference of at most {self.most[work]:.2g} from transformers in float32",
                got=f"{difference:.2e}",
            )

    def of_logits(self, logits, precision: str) -> float:
        """Difference of logits [B, T, V], as above."""
        largest = error = total = 0.0
        for piece, wanted in self._pieces("logits.f32", logits):
            apart = np.abs(piece - wanted)
            largest = max(largest, float(apart.max())) if np.isfinite(apart).all() else np.nan
            error += float(np.square(apart).sum())
            total += float(np.square(wanted).sum())
            if not np.isfinite(error):
                return float("nan")
        return largest if precision == "float32" else (error / total) ** 0.5

    def of_gradient(self, loss: float, norm: float, gradient) -> float:
        """Difference of loss, norm and the embedding's gradient [V, D], as above."""
        error = total = 0.0
        for piece, wanted in self._pieces("gradient.f32", gradient):
            error += float(np.square(piece - wanted).sum())
            total += float(np.square(wanted).sum())
        found = [abs(loss / self.loss - 1), abs(norm / self.norm - 1), (error / total) ** 0.5]
        return max(found) if np.isfinite(found).all() else float("nan")

    def of_answers(self, answers: list[list[int]]) -> float:
        """Share of tokens that are others; nan where answers have other lengths."""
        wanted = self.answers[: len(answers)]
        if [len(each) for each in answers] != [len(each) for each in wanted]:
            return float("nan")
        return float(np.mean(np.array(answers) != np.array(wanted)))

    def regret(self, answers: list[list[int]]) -> float:
        """How far drawn tokens are from the best ones in float32, as above."""
        import torch

        apart = squares = count = 0.0
        for prompt, answer in zip(self.prompts, answers):
            z = _after(self.model, prompt, answer)
            drawn = z.gather(1, torch.tensor(answer)[:, None])[:, 0]
            apart += float((z.amax(1) - drawn).sum())
            squares += float(z.square().mean(1).sum())
            count += len(answer)
        return (apart / count) / (squares / count) ** 0.5

    def _pieces(self, name: str, found):
        """Stretches of at most 2^20 numbers of a tensor, as float32, and of the reference."""
        flat, size = found.detach().reshape(-1), 1 << 20
        with open(self.folder / name, "rb") as file:
            for start in range(0, flat.numel(), size):
                wanted = np.fromfile(file, np.float32, min(size, flat.numel() - start))
                yield flat[start : start + size].cpu().float().numpy(), wanted
            assert not file.read(1), f"{name}: {flat.numel()} numbers are not all"


def _write(folder: Path, told: dict[str, Any]) -> None:
    (folder / "reference.json").write_text(json.dumps(told), encoding="utf-8")


def _trained(model, ids) -> tuple[float, float, Any]:
    """Loss, length of the gradient and the embedding's gradient of transformers' module."""
    model.zero_grad(set_to_none=True)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return loss.item(), _norm(model), model.get_input_embeddings().weight.grad


def _norm(model) -> float:
    """Length of the whole gradient: experts and joined weights lie otherwise, and it is the same."""
    grads = [each.grad for each in model.parameters() if each.grad is not None]
    return sum(float(grad.double().square().sum()) for grad in grads) ** 0.5


def _after(model, prompt: list[int], answer: list[int]):
    """float32 logits [len(answer), V] that each token of an answer was drawn from."""
    import torch

    with torch.inference_mode():
        ids = torch.tensor([prompt + answer[:-1]])
        return model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :]


def _top_two(model, prompts: list[list[int]], answers: list[list[int]]) -> list[float]:
    """By answer, how close its best and its second-best logit ever come."""
    gaps = []
    for prompt, answer in zip(prompts, answers):
        best = _after(model, prompt, answer).topk(2, 1).values
        gaps.append(float((best[:, 0] - best[:, 1]).min()))
    return gaps


# The arms, each in a process of its own


@dataclass
class Work:
    """What an arm does in a turn, and how far what it gave is from the reference."""

    do: Callable[[], Any]
    difference: Callable[[Any], float]


def endonym(spec: dict[str, Any], turns: Turns) -> None:
    """hf.load; the decoder with methods/nll; the engine."""
    torch, device, cast = _place(spec)
    from endonym.engine.generate import generate
    from endonym.engine.sampler import Sampling
    from endonym.methods.nll import nll
    from endonym.model import hf

    model = hf.load(spec["folder"], dtype=_weights(spec), device=device)
    reference = Reference(spec["folder"])
    ids = torch.tensor(reference.texts, device=device)
    weights = torch.ones(ids.shape, device=device)
    weights[:, -1] = 0
    num_targets = ids.shape[0] * (ids.shape[1] - 1)

    @torch.inference_mode()
    def forward():
        return model.logits(model(ids))

    def training():
        model.train().zero_grad(set_to_none=True)
        with cast():
            found = nll(model(ids), model.head, ids.roll(-1, 1), weights)
        loss = found.value / num_targets
        loss.backward()
        return loss.item(), model, model.head.grad

    def decoding():
        asked = reference.prompts[: max(spec["batch"], ANSWERS)]
        sampling = Sampling(temperature=0.0, max_tokens=len(reference.answers[0]))
        return [each.tokens for each in generate(model, asked, sampling, batch=spec["batch"])]

    _take_turns(spec, turns, reference, locals()[spec["work"]])


def transformers(spec: dict[str, Any], turns: Turns) -> None:
    """AutoModelForCausalLM with its own loss and its generate."""
    torch, device, cast = _place(spec)
    from transformers import AutoModelForCausalLM

    way = {"experts_implementation": spec["experts"]} if "experts" in spec else {}
    model = AutoModelForCausalLM.from_pretrained(spec["folder"], dtype=_weights(spec), **way)
    model = model.to(device).eval()
    reference = Reference(spec["folder"])
    ids = torch.tensor(reference.texts, device=device)

    @torch.inference_mode()
    def forward():
        return model(input_ids=ids, use_cache=False).logits

    def training():
        model.train().zero_grad(set_to_none=True)
        with cast():
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        return loss.item(), model, model.get_input_embeddings().weight.grad

    def decoding():
        asked = reference.prompts[: max(spec["batch"], ANSWERS)]
        done, batch = [], spec["batch"]
        for start in range(0, len(asked), batch):
            here = asked[start : start + batch]
            done += _greedy(model, here, len(reference.answers[0]), spec)
        return done

    _take_turns(spec, turns, reference, locals()[spec["work"]])


def _greedy(
    model, prompts: list[list[int]], new_tokens: int, spec: dict[str, Any]
) -> list[list[int]]:
    """Answers by transformers' generate to prompts of one length."""
    import torch
    from transformers import GenerationConfig

    ids = torch.tensor(prompts, device=model.device)
    settings = GenerationConfig(
        do_sample=False,
        min_new_tokens=new_tokens,
        max_new_tokens=new_tokens,
        use_cache=True,
        cache_implementation=spec.get("cache"),
        pad_token_id=0,
    )
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings
        )
    return out[:, ids.shape[1] :].tolist()


def _place(spec: dict[str, Any]):
    """torch, the device, and what training runs in. Called first: an arm sees no GPU unless told."""
    if spec["device"] == "cuda":
        if spec["visible"] is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = spec["visible"]
    from contextlib import nullcontext
    from functools import partial

    import torch

    half = spec["precision"] == "bfloat16"
    cast = partial(torch.autocast, spec["device"], torch.bfloat16) if half else nullcontext
    return torch, torch.device(spec["device"]), cast


def _weights(spec: dict[str, Any]):
    """The dtype to load in: training keeps float32 weights and casts."""
    import torch

    return torch.float32 if spec["work"] == "training" else getattr(torch, spec["precision"])


def _take_turns(
    spec: dict[str, Any], turns: Turns, reference: Reference, work: Callable[[], Any]
) -> None:
    """Turns of work and turns of checking what the last one gave, after a warm-up that is checked."""
    import torch

    from endonym.train import work as speed

    kind, precision = spec["work"], spec["precision"]
    on_gpu = spec["device"] == "cuda"
    first: list[list[int]] = []

    def check(given) -> float:
        if kind == "forward":
            difference = reference.of_logits(given, precision)
        elif kind == "training":
            loss, model, gradient = given
            difference = reference.of_gradient(loss, _norm(model), gradient)
        elif precision == "float32":
            difference = reference.of_answers(given)
        else:
            # run() judges the warm-up's tokens; those of a turn must be the same.
            first[:] = first or given
            difference = 0.0 if given == first else float("nan")
        reference.accept(difference, kind, "what it gave")
        return difference

    before = torch.cuda.memory_allocated() if on_gpu else machine.peak_bytes()
    for _ in range(WARMUP):
        given = None  # two of them at once would be no fair peak
        given = work()
    facts: dict[str, Any] = {
        "difference": check(given),
        "before_bytes": before,
        "device_peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        "device_speed": speed.peak(torch.device(spec["device"]), getattr(torch, precision)),
    }
    turns.ready(**facts, answers=given if kind == "decoding" else None)
    given = None
    while True:
        turn = turns.wait()
        if turn["key"] == "check":
            check(given)
            given = None
        else:
            given = None
            given = work()
            if on_gpu:
                torch.cuda.synchronize()
        turns.done()
