"""One step of supervised fine-tuning on the same weights and the same conversations.

Every arm learns from all conversations of material.Block in every step, with the same targets, the
same AdamW and the same clipping, so their first losses agree; what differs is how the tokens lie:

    packed      8 rows of 512 tokens, each token seeing its own conversation only
    padded      a row for each conversation, 8 rows at a time, gradients accumulated over the block
    by length   the same, the conversations sorted, so that rows of like length stand together

Endonym is measured as a user runs it: train() with its Loader, logs on. TRL's logging, saving,
evaluation and gradient checkpointing are off; its entropy and accuracy of every token cannot be
switched off, and its loss_type "chunked_nll" is in 1.16 another name for "nll". A plain transformers
loop stands beside them, so that the trainer's share can be told from the model's.
"""

from pathlib import Path
from typing import Any

from benchmarks import learning, material
from benchmarks.compare import Arm, compare, ratios, spread
from benchmarks.learning import LEARNING_RATE, WARMUP
from benchmarks.turns import Steps, Turns
from endonym.core.errors import DataError

BRIEF = ("Endonym, packed", "Endonym, padded", "TRL, padded", "TRL, packed", "plain loop, packed")

TOLERANCE = {"float32": 2e-4, "bfloat16": 1e-3}
"""Largest relative difference of the first losses. float32: sums in another order and, in the second
step, what AdamW makes of it; bfloat16: 8 bits of mantissa (4e-3) a target, averaged over thousands."""


def run(
    shape: material.Shape, precision: str, threads: int, repeats: int, folder: Path, note, *,
    peers: bool = True, per_turn: int = 1, brief: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The comparison of one shape and precision: figures of each arm, ratios to Endonym's packed one.

    brief: of the peers' layouts TRL's default and its best, and the plain loop's best.
    """
    words = material.tokenizer(shape.vocab_size)
    words.save(folder)
    parameters = material.save_model(shape, folder)
    block = material.block(words)
    material.save_block(block, folder / "block.json")
    spec = {"folder": str(folder), "precision": precision, "per_turn": per_turn}
    arms = [
        Arm("Endonym, packed", "benchmarks.sft:endonym", {**spec, "packed": True}),
        Arm("Endonym, padded", "benchmarks.sft:endonym", {**spec, "packed": False}),
    ]
    if peers:
        arms += [
            Arm("TRL, padded", "benchmarks.sft:trl", {**spec, "layout": "padded"}),
            Arm("TRL, by length", "benchmarks.sft:trl", {**spec, "layout": "by length"}),
            Arm("TRL, packed", "benchmarks.sft:trl", {**spec, "layout": "packed", "rows": 1}),
            Arm("TRL, packed, 8 rows at once", "benchmarks.sft:trl", {**spec, "layout": "packed"}),
            Arm("plain loop, padded", "benchmarks.sft:plain", {**spec, "layout": "padded"}),
            Arm("plain loop, by length", "benchmarks.sft:plain", {**spec, "layout": "by length"}),
            Arm("plain loop, packed", "benchmarks.sft:plain", {**spec, "layout": "packed"}),
        ]
    if brief:
        arms = [arm for arm in arms if arm.name in BRIEF]
    records = compare(arms, [{"key": "step"}], repeats=repeats, threads=threads, note=note)
    tokens = block.figures["tokens"] * per_turn
    ours = records[arms[0].name]
    rows = []
    for arm in arms:
        one = records[arm.name]
        rows.append(
            {
                "arm": arm.name,
                "cpu_seconds": spread([cpu / per_turn for cpu in one.cpu["step"]]),
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
    return {
        "shape": shape.name,
        "parameters": parameters,
        "precision": precision,
        "threads": threads,
        "repeats": repeats,
        "block": block.figures,
        "tolerance": TOLERANCE[precision],
        "difference": max(differences(rows)),
        "rows": rows,
    }


def differences(rows: list[dict[str, Any]]) -> list[float]:
    """Relative differences of every arm's warm-up losses to the first arm's."""
    first = rows[0]["losses"]
    return [abs(a - b) / abs(a) for row in rows for a, b in zip(first, row["losses"], strict=True)]


def same_work(rows: list[dict[str, Any]], tolerance: float) -> None:
    """DataError unless all arms have WARMUP losses that agree: before the first update and after it."""
    is_complete = all(len(row["losses"]) == WARMUP for row in rows)
    # Said so that a loss that is no number does not pass.
    if not is_complete or not all(each <= tolerance for each in differences(rows)):
        raise DataError(
            "the arms do different work, so their speeds cannot be compared",
            where="losses of the first steps",
            wanted=f"a relative difference of at most {tolerance}",
            got="; ".join(f"{row['arm']} {row['losses']}" for row in rows),
        )


# The arms, each in a process of its own


def endonym(spec: dict[str, Any], turns: Turns) -> None:
    """hf.load, Loader, train() with methods/nll: what the sft stage runs."""

    from endonym.data.loader import Loader, TokenStore
    from endonym.model import hf
    from endonym.stages.training import BalanceConfig, NextTokens
    from endonym.tokenizer.folder import Tokenizer
    from endonym.train.config import TrainConfig
    from endonym.train.loop import train

    scratch = Path(spec["scratch"])
    block = material.read_block(Path(spec["folder"]) / "block.json")
    words = Tokenizer.load(spec["folder"])
    store = TokenStore.build(scratch / "tokens", block.messages, words, key="block")
    assert store.num_tokens == block.figures["tokens"]
    loader = Loader(
        [store],
        rows_per_step=material.ROWS if spec["packed"] else len(block.ids),
        row_length=material.ROW,
        packed=spec["packed"],
    )
    steps = Steps(turns, WARMUP, spec["per_turn"])
    config = TrainConfig(**learning.settings(spec))
    context = learning.context(spec, rows_per_device=None if spec["packed"] else material.ROWS)
    objective = NextTokens(BalanceConfig(), 0.0)
    watched = learning.Watched(loader, steps, spec)
    train(hf.load(spec["folder"]), objective, watched, config, context)


def trl(spec: dict[str, Any], turns: Turns) -> None:
    """TRL's SFTTrainer on the same ids and masks; `rows` of them at once, the rest accumulated."""
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    learning.hushed()
    block = material.read_block(Path(spec["folder"]) / "block.json")
    order = _order(block, spec["layout"])
    packed = spec["layout"] == "packed"
    rows = spec.get("rows", material.ROWS)
    # Packed: one epoch is one step. Else the block stands there many times, in order, so that no
    # epoch ends (and no iterator is made anew) within the measurement.
    times = 1 if packed else 64
    data = {
        "input_ids": [block.ids[i] for i in order] * times,
        "assistant_masks": [[int(is_target) for is_target in block.supervised[i]] for i in order]
        * times,
    }
    arguments = SFTConfig(
        max_length=material.ROW,
        packing=packed,
        **learning.arguments(spec, rows, (material.ROWS if packed else len(block.ids)) // rows),
        train_sampling_strategy="random" if packed else "sequential",
    )
    steps = Steps(turns, WARMUP, spec["per_turn"])
    Watched = learning.watched(SFTTrainer, steps)
    trainer = Watched(
        model=AutoModelForCausalLM.from_pretrained(spec["folder"]).float(),
        args=arguments,
        train_dataset=datasets.Dataset.from_dict(data),
        processing_class=AutoTokenizer.from_pretrained(spec["folder"]),
    )
    if packed:
        assert len(trainer.train_dataset) == material.ROWS, (
            f"TRL packs {len(trainer.train_dataset)}"
        )
    trainer.train()


def plain(spec: dict[str, Any], turns: Turns) -> None:
    """transformers' LlamaForCausalLM, its own loss, AdamW (fused), clipping: no trainer at all."""
    from contextlib import nullcontext

    import torch
    from transformers import AutoModelForCausalLM

    block = material.read_block(Path(spec["folder"]) / "block.json")
    batches = _packed_batch(block) if spec["layout"] == "packed" else _padded(block, spec["layout"])
    num_targets = block.figures["supervised"]
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
                loss = model(**batch, num_items_in_batch=num_targets, use_cache=False).loss
            loss.backward()
            total += float(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if steps.is_warming_up:
            steps.losses.append(total)


def _order(block: material.Block, layout: str) -> list[int]:
    numbers = list(range(len(block.ids)))
    return sorted(numbers, key=lambda i: len(block.ids[i])) if layout == "by length" else numbers


def _padded(block: material.Block, layout: str) -> list[dict]:
    """Batches of ROWS conversations, each padded to its longest."""
    import torch

    order = _order(block, layout)
    batches = []
    for start in range(0, len(order), material.ROWS):
        part = order[start : start + material.ROWS]
        shape = (len(part), max(len(block.ids[i]) for i in part))
        ids, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, -100)
        mask = torch.zeros(shape, dtype=torch.long)
        for row, number in enumerate(part):
            length = len(block.ids[number])
            ids[row, :length] = torch.tensor(block.ids[number])
            is_target = torch.tensor(block.supervised[number])
            labels[row, :length] = torch.where(is_target, ids[row, :length], -100)
            mask[row, :length] = 1
        batches.append({"input_ids": ids, "labels": labels, "attention_mask": mask})
    return batches


def _packed_batch(block: material.Block) -> list[dict]:
    """All ROWS rows in one batch; positions that start anew tell transformers where to mask."""
    import numpy as np
    import torch

    from endonym.data.pack import best_fit

    packing = best_fit(np.array([len(each) for each in block.ids]), material.ROW)
    shape = (len(packing), material.ROW)
    ids, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, -100)
    positions = torch.zeros(shape, dtype=torch.long)
    for row in range(len(packing)):
        at = 0
        for number in packing.row(row):
            here = slice(at, at + len(block.ids[number]))
            ids[row, here] = torch.tensor(block.ids[number])
            is_target = torch.tensor(block.supervised[number])
            labels[row, here] = torch.where(is_target, ids[row, here], -100)
            positions[row, here] = torch.arange(len(block.ids[number]))
            at = here.stop
        positions[row, at:] = torch.arange(material.ROW - at)
    return [{"input_ids": ids, "labels": labels, "position_ids": positions}]
