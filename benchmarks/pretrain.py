"""One step of pre-training on the same weights and the same tokens, every next token a target.

    full     ROWS rows of ROW tokens, each one stretch of text: nothing to pack, nothing to mask
    padded   the documents of material.Block, a row each, ROWS at a time, gradients accumulated

Beside Endonym (train() with its Loader, logs on) stand transformers' own Trainer, the usual plain way,
with its logging and saving off, and a loop without any trainer, so that the Trainer's share can be told
from the model's.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks import learning, material
from benchmarks.compare import Arm, compare, ratios, spread
from benchmarks.learning import LEARNING_RATE, WARMUP
from benchmarks.sft import TOLERANCE, differences, same_work
from benchmarks.turns import Steps, Turns


def run(
    shape: material.Shape, precision: str, threads: int, repeats: int, folder: Path, note, *,
    peers: bool = True, per_turn: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """The comparison of one shape and precision: figures of each arm, ratios to Endonym's of that layout."""
    words = material.tokenizer(shape.vocab_size)
    words.save(folder)
    parameters = material.save_model(shape, folder)
    texts = {"full": material.stretches(words), "padded": material.block(words).ids}
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    result = {
        "shape": shape.name,
        "parameters": parameters,
        "precision": precision,
        "threads": threads,
        "repeats": repeats,
        "tolerance": TOLERANCE[precision],
        "layouts": [],
    }
    for layout, ids in texts.items():
        spec = {"folder": str(folder), "precision": precision, "per_turn": per_turn}
        spec |= {"layout": layout, "rows": len(ids)}
        arms = [Arm("Endonym", "benchmarks.pretrain:endonym", spec)]
        if peers:
            arms += [
                Arm("transformers Trainer", "benchmarks.pretrain:trainer", spec),
                Arm("plain loop", "benchmarks.pretrain:plain", spec),
            ]
        records = compare(arms, [{"key": "step"}], repeats=repeats, threads=threads, note=note)
        tokens = per_turn * sum(len(each) - 1 for each in ids)
        ours, rows = records["Endonym"], []
        for arm in arms:
            one = records[arm.name]
            rows.append(
                {
                    "arm": arm.name,
                    "tokens_per_cpu_second": spread([tokens / cpu for cpu in one.cpu["step"]]),
                    "tokens_per_second": spread([tokens / wall for wall in one.wall["step"]]),
                    "peak_bytes": one.peak_bytes,
                    "losses": one.ready["losses"],
                    "cpu_ratio": ratios(ours.cpu["step"], one.cpu["step"]),
                    "wall_ratio": ratios(ours.wall["step"], one.wall["step"]),
                    "peak_ratio": one.peak_bytes / ours.peak_bytes,
                }
            )
        same_work(rows, TOLERANCE[precision])
        result["layouts"].append(
            {
                "layout": layout,
                "tokens": tokens // per_turn,
                "difference": max(differences(rows)),
                "rows": rows,
            }
        )
    return result


# The arms, each in a process of its own


def endonym(spec: dict[str, Any], turns: Turns) -> None:
    """hf.load, Loader, train() with the objective of the pretrain stage."""
    from endonym.methods.batch import Rows
    from endonym.model import hf
    from endonym.stages.training import BalanceConfig, NextTokens
    from endonym.train.config import TrainConfig
    from endonym.train.loop import train

    given = _batch(spec)
    steps = Steps(turns, WARMUP, spec["per_turn"])

    class Given:
        """The rows of a step, built anew each time as a loader does."""

        identity = "the same rows again and again"

        def rows(self, step: int) -> Rows:
            return Rows(*(each.clone() for each in given))

    config = TrainConfig(**learning.settings(spec))
    context = learning.context(spec, rows_per_device=material.ROWS)
    objective = NextTokens(BalanceConfig(), 0.0)
    watched = learning.Watched(Given(), steps, spec)
    train(hf.load(spec["folder"]), objective, watched, config, context)


def trainer(spec: dict[str, Any], turns: Turns) -> None:
    """transformers' Trainer on padded batches of ids, labels and attention mask."""
    import datasets
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    learning.hushed()
    ids = _ids(spec)
    # Many copies, in order, so that no epoch ends (and no iterator is made anew) within a measurement.
    data = datasets.Dataset.from_dict({"input_ids": ids * 64})
    arguments = TrainingArguments(
        **learning.arguments(spec, material.ROWS, len(ids) // material.ROWS),
        train_sampling_strategy="sequential",
    )
    steps = Steps(turns, WARMUP, spec["per_turn"])
    Watched = learning.watched(Trainer, steps)
    model = AutoModelForCausalLM.from_pretrained(spec["folder"]).float()
    Watched(
        model=model,
        args=arguments,
        train_dataset=data,
        data_collator=lambda rows: _padded([row["input_ids"] for row in rows]),
    ).train()


def plain(spec: dict[str, Any], turns: Turns) -> None:
    """transformers' LlamaForCausalLM, its own loss, AdamW (fused), clipping: no trainer at all."""
    from contextlib import nullcontext

    import torch
    from transformers import AutoModelForCausalLM

    ids = _ids(spec)
    batches = [_padded(ids[i : i + material.ROWS]) for i in range(0, len(ids), material.ROWS)]
    targets = sum(len(each) - 1 for each in ids)
    model = AutoModelForCausalLM.from_pretrained(spec["folder"]).float().train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.999), weight_decay=0, fused=True
    )
    is_bf16 = spec["precision"] == "bfloat16"
    cast = torch.autocast("cpu", torch.bfloat16) if is_bf16 else nullcontext()
    steps = Steps(turns, WARMUP, spec["per_turn"])
    while True:
        steps.boundary()
        total = 0.0
        for batch in batches:
            with cast:
                loss = model(**batch, num_items_in_batch=targets, use_cache=False).loss
            loss.backward()
            total += float(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if steps.is_warming_up:
            steps.losses.append(total)


def _ids(spec: dict[str, Any]) -> list[list[int]]:
    texts = json.loads((Path(spec["folder"]) / "texts.json").read_text(encoding="utf-8"))
    return texts[spec["layout"]]


def _padded(ids: list[list[int]]) -> dict[str, Any]:
    """One batch as transformers wants it: each row padded to the longest; labels are the ids."""
    import torch

    shape = (len(ids), max(map(len, ids)))
    tokens, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, -100)
    mask = torch.zeros(shape, dtype=torch.long)
    for row, each in enumerate(ids):
        tokens[row, : len(each)] = labels[row, : len(each)] = torch.tensor(each)
        mask[row, : len(each)] = 1
    return {"input_ids": tokens, "labels": labels, "attention_mask": mask}


def _batch(spec: dict[str, Any]) -> tuple:
    """The same as the parts of Rows: inputs without the last token, each with the next one as its label."""
    import torch

    ids = _ids(spec)
    shape = (len(ids), max(map(len, ids)) - 1)
    tokens, labels, segments, positions = (torch.zeros(shape, dtype=torch.long) for _ in range(4))
    for row, each in enumerate(ids):
        length = len(each) - 1
        tokens[row, :length], labels[row, :length] = torch.tensor(each[:-1]), torch.tensor(each[1:])
        segments[row, :length], positions[row, :length] = 1, torch.arange(length)
    return tokens, labels, segments.float(), segments, positions
