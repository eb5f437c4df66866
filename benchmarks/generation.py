"""Answers from the same weights to the same prompts of unequal length; time includes reading
the prompts.

Even: every answer has NEW_TOKENS tokens, and there are as many prompts as rows in the batch. Uneven:
four times as many prompts as rows, each with a length at which its answer ends, drawn once from 1 to
NEW_TOKENS with equal chance, the same for all arms. transformers ends rows by a stopping criterion and
goes on with the batch until its longest answer ends; only the tokens of answers count.

Groups: each prompt stands GROUP times in the batch, as in reinforcement learning. Drawn: not greedy but
at temperature 1 with top_p = 0.95; the arms' random numbers differ, so their tokens do.

Endonym's engine also gives the log-probability of every token, which transformers is not asked for.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from benchmarks import material
from benchmarks.compare import Arm, compare, ratios, spread
from benchmarks.turns import Turns
from endonym.core.errors import DataError

BATCHES = (1, 8, 32)
UNEVEN = 8
"""Rows of the batch whose answers end apart."""
NEW_TOKENS = 64
MANY, GROUP = 32, 8
"""Rows of the batches of groups and of drawn answers, and equal prompts in a group."""
TOP_P = 0.95

TOLERANCE = {"float32": 0.99, "bfloat16": 0.0}
"""Least share of tokens that must be equal. In float32 two tokens may lie closer than the rounding,
after which an answer goes another way. In bfloat16 that happens within a few tokens, so the share is
told and nothing asked of it."""


def run(
    shape: material.Shape, precision: str, threads: int, repeats: int, folder: Path, note, *,
    peers: bool = True, batches: tuple[int, ...] = BATCHES, new_tokens: int = NEW_TOKENS,
) -> dict[str, Any]:  # fmt: skip
    """The comparison of one precision: a row for each batch size and arm."""
    words = material.tokenizer(shape.vocab_size)
    words.save(folder)
    parameters = material.save_model(shape, folder, lively=True)
    prompts = material.prompts(words, max(*batches, 4 * UNEVEN, MANY))
    lengths = Random(0)
    ends = [lengths.randint(1, new_tokens) for _ in range(4 * UNEVEN)]
    cases = {str(size): Case(size, [new_tokens] * size) for size in batches}
    cases["uneven"] = Case(UNEVEN, ends)
    cases["groups"] = Case(MANY, [new_tokens] * MANY, group=GROUP)
    cases["drawn"] = Case(MANY, [new_tokens] * MANY, drawn=True)
    spec = {
        "folder": str(folder),
        "precision": precision,
        "prompts": prompts,
        "cases": {key: asdict(case) for key, case in cases.items()},
    }
    arms = [Arm("Endonym", "benchmarks.generation:endonym", spec)]
    if peers:
        arms += [
            Arm(f"transformers, {kind} cache", "benchmarks.generation:hf", {**spec, "cache": kind})
            for kind in ("dynamic", "static")
        ]
    # A turn at batch 1 is short: several answers, so that the clock's grain does not count.
    turns = [{"key": key, "times": 4 if case.batch == 1 else 1} for key, case in cases.items()]
    records = compare(arms, turns, repeats=repeats, threads=threads, note=note)
    ours = records[arms[0].name]
    rows = []
    for turn in turns:
        key = turn["key"]
        case = cases[key]
        tokens = sum(case.ends) * turn["times"]
        for arm in arms:
            one = records[arm.name]
            rows.append(
                {
                    "batch": case.batch,
                    "answers": f"{len(case.ends)} of {_range(case.ends)} tokens{case.kind}",
                    "drawn": case.drawn,
                    "arm": arm.name,
                    "tokens_per_cpu_second": spread([tokens / cpu for cpu in one.cpu[key]]),
                    "tokens_per_second": spread([tokens / wall for wall in one.wall[key]]),
                    "cpu_ratio": ratios(ours.cpu[key], one.cpu[key]),
                    "wall_ratio": ratios(ours.wall[key], one.wall[key]),
                    "peak_bytes": one.peak_bytes,
                    "peak_ratio": one.peak_bytes / ours.peak_bytes,
                    **agreement(ours.ready["answers"][key], one.ready["answers"][key], case.ends),
                }
            )
    same_work(rows, TOLERANCE[precision])
    return {
        "shape": shape.name,
        "parameters": parameters,
        "precision": precision,
        "threads": threads,
        "repeats": repeats,
        "new_tokens": new_tokens,
        "prompt_tokens": [len(prompt) for prompt in prompts],
        "distinct_tokens": len(
            {t for each in ours.ready["answers"].values() for a in each for t in a}
        ),
        "rows": rows,
    }


@dataclass(frozen=True)
class Case:
    """Rows at a time, and the number of tokens after which each prompt's answer ends; how many equal
    prompts stand side by side, and whether answers are drawn by chance."""

    batch: int
    ends: list[int]
    group: int = 1
    drawn: bool = False

    @property
    def kind(self) -> str:
        return (f", groups of {self.group}" if self.group > 1 else "") + (", drawn" * self.drawn)

    def prompts(self, prompts: list[list[int]]) -> list[list[int]]:
        return [prompts[index // self.group] for index in range(len(self.ends))]


def _range(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def agreement(ours: list[list[int]], theirs: list[list[int]], ends: list[int]) -> dict[str, Any]:
    """Share of equal tokens, place by place, and of wholly equal answers; whether all have the
    lengths asked for."""
    pairs = [(a, b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other)]
    return {
        "equal_tokens": sum(a == b for a, b in pairs) / max(len(pairs), 1),
        "equal_answers": sum(one == other for one, other in zip(ours, theirs)) / len(ours),
        "has_all_tokens": [len(each) for each in theirs] == ends,
    }


def same_work(rows: list[dict[str, Any]], least: float) -> None:
    """DataError unless every arm drew the tokens asked for, and, greedily in float32, the same ones."""
    for row in rows:
        differ = row["equal_tokens"] < least and not row["drawn"]
        if differ or not row["has_all_tokens"]:
            raise DataError(
                "the arms do different work, so their speeds cannot be compared",
                where=f"batch {row['batch']}, {row['arm']}",
                wanted=f"answers of the lengths asked for, {least:.0%} of their tokens Endonym's",
                got=f"{'those' if row['has_all_tokens'] else 'other'} lengths, "
                f"{row['equal_tokens']:.1%} equal",
            )


# The arms, each in a process of its own


def endonym(spec: dict[str, Any], turns: Turns) -> None:
    import torch

    from endonym.engine.generate import generate
    from endonym.engine.sampler import Sampling
    from endonym.model import hf

    model = hf.load(spec["folder"], dtype=getattr(torch, spec["precision"]))
    greedy, drawn = Sampling(temperature=0.0), Sampling(top_p=TOP_P)

    def answers(case: Case) -> list[list[int]]:
        prompts, sampling = case.prompts(spec["prompts"]), drawn if case.drawn else greedy
        done = generate(model, prompts, sampling, batch=case.batch, limits=case.ends)
        return [each.tokens for each in done]

    _take_turns(answers, spec, turns)


def hf(spec: dict[str, Any], turns: Turns) -> None:
    """transformers' generate on prompts padded on the left, as its guide says."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig, StoppingCriteriaList

    dtype = getattr(torch, spec["precision"])
    model = AutoModelForCausalLM.from_pretrained(spec["folder"], dtype=dtype).eval()

    def some(prompts: list[list[int]], ends: list[int], drawn: bool) -> list[list[int]]:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(each)) + each for each in prompts])
        mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in prompts])
        settings = GenerationConfig(
            **(dict(do_sample=True, top_p=TOP_P, top_k=0) if drawn else dict(do_sample=False)),
            max_new_tokens=max(ends),
            use_cache=True,
            cache_implementation="static" if spec["cache"] == "static" else None,
            pad_token_id=0,
        )
        stop = torch.tensor(ends) + longest
        criteria = [] if min(ends) == max(ends) else [lambda ids, _: ids.shape[1] >= stop]
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=settings,
            stopping_criteria=StoppingCriteriaList(criteria),
        )
        return [row[:end] for row, end in zip(out[:, longest:].tolist(), ends)]

    @torch.inference_mode()
    def answers(case: Case) -> list[list[int]]:
        prompts, done = case.prompts(spec["prompts"]), []
        for start in range(0, len(prompts), case.batch):
            here = slice(start, start + case.batch)
            done += some(prompts[here], case.ends[here], case.drawn)
        return done

    _take_turns(answers, spec, turns)


def _take_turns(answers, spec: dict[str, Any], turns: Turns) -> None:
    """The first answers of each case are the warm-up, and what arms are compared by."""
    cases = {key: Case(**case) for key, case in spec["cases"].items()}
    turns.ready(answers={key: answers(case) for key, case in cases.items()})
    while True:
        turn = turns.wait()
        for _ in range(turn["times"]):
            answers(cases[turn["key"]])
        turns.done()
