"""Greedy answers from the same weights to the same prompts of unequal length, a fixed number of tokens.

Nothing stops early, so every arm draws batch x NEW_TOKENS tokens; time includes reading the prompts.
Endonym's engine also gives the log-probability of every token, which transformers is not asked for.
"""

from pathlib import Path
from typing import Any

from benchmarks import material
from benchmarks.compare import Arm, compare, ratios, spread
from benchmarks.turns import Turns
from endonym.core.errors import DataError

BATCHES = (1, 8, 32)
NEW_TOKENS = 64

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
    prompts = material.prompts(words, max(batches))
    spec = {
        "folder": str(folder),
        "precision": precision,
        "prompts": prompts,
        "batches": list(batches),
        "new_tokens": new_tokens,
    }
    arms = [Arm("Endonym", "benchmarks.generation:endonym", spec)]
    if peers:
        arms += [
            Arm(f"transformers, {kind} cache", "benchmarks.generation:hf", {**spec, "cache": kind})
            for kind in ("dynamic", "static")
        ]
    # A turn at batch 1 is short: several answers, so that the clock's grain does not count.
    turns = [{"key": str(size), "times": 4 if size == 1 else 1} for size in batches]
    records = compare(arms, turns, repeats=repeats, threads=threads, note=note)
    ours = records[arms[0].name]
    rows = []
    for turn in turns:
        key = turn["key"]
        tokens = int(key) * new_tokens * turn["times"]
        for arm in arms:
            one = records[arm.name]
            rows.append(
                {
                    "batch": int(key),
                    "arm": arm.name,
                    "tokens_per_cpu_second": spread([tokens / cpu for cpu in one.cpu[key]]),
                    "tokens_per_second": spread([tokens / wall for wall in one.wall[key]]),
                    "cpu_ratio": ratios(ours.cpu[key], one.cpu[key]),
                    "wall_ratio": ratios(ours.wall[key], one.wall[key]),
                    "peak_bytes": one.peak_bytes,
                    "peak_ratio": one.peak_bytes / ours.peak_bytes,
                    **agreement(ours.ready["answers"][key], one.ready["answers"][key]),
                }
            )
    same_work(rows, new_tokens, TOLERANCE[precision])
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


def agreement(ours: list[list[int]], theirs: list[list[int]]) -> dict[str, Any]:
    """Share of equal tokens, place by place, and of wholly equal answers; tokens of the shortest."""
    pairs = [(a, b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other)]
    return {
        "equal_tokens": sum(a == b for a, b in pairs) / max(len(pairs), 1),
        "equal_answers": sum(one == other for one, other in zip(ours, theirs)) / len(ours),
        "shortest_answer": min(map(len, theirs)),
    }


def same_work(rows: list[dict[str, Any]], new_tokens: int, least: float) -> None:
    """DataError unless every arm drew as many tokens, and in float32 the same ones."""
    for row in rows:
        if row["shortest_answer"] != new_tokens or row["equal_tokens"] < least:
            raise DataError(
                "the arms do different work, so their speeds cannot be compared",
                where=f"batch {row['batch']}, {row['arm']}",
                wanted=f"{new_tokens} tokens an answer, {least:.0%} of them equal to Endonym's",
                got=f"{row['shortest_answer']} tokens, {row['equal_tokens']:.1%} equal",
            )


# The arms, each in a process of its own


def endonym(spec: dict[str, Any], turns: Turns) -> None:
    import torch

    from endonym.engine.generate import generate
    from endonym.engine.sampler import Sampling
    from endonym.model import hf

    model = hf.load(spec["folder"], dtype=getattr(torch, spec["precision"]))
    sampling = Sampling(temperature=0.0, max_tokens=spec["new_tokens"])

    def answers(size: int) -> list[list[int]]:
        done = generate(model, spec["prompts"][:size], sampling, batch=size)
        return [each.tokens for each in done]

    _take_turns(answers, spec, turns)


def hf(spec: dict[str, Any], turns: Turns) -> None:
    """transformers' generate on prompts padded on the left, as its guide says."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    dtype = getattr(torch, spec["precision"])
    model = AutoModelForCausalLM.from_pretrained(spec["folder"], dtype=dtype).eval()
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=spec["new_tokens"],
        min_new_tokens=spec["new_tokens"],
        use_cache=True,
        cache_implementation="static" if spec["cache"] == "static" else None,
        pad_token_id=0,
    )

    @torch.inference_mode()
    def answers(size: int) -> list[list[int]]:
        prompts = spec["prompts"][:size]
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(each)) + each for each in prompts])
        mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in prompts])
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
        return out[:, longest:].tolist()

    _take_turns(answers, spec, turns)


def _take_turns(answers, spec: dict[str, Any], turns: Turns) -> None:
    """The first answers of each batch size are the warm-up, and what arms are compared by."""
    turns.ready(answers={str(size): answers(size) for size in spec["batches"]})
    while True:
        turn = turns.wait()
        for _ in range(turn["times"]):
            answers(int(turn["key"]))
        turns.done()
