"""One step of training a reward model on the same weights and the same pairs.

The pairs are made of material.Block: two conversations of it are the two sides, 12 pairs a step, with
the same AdamW and the same clipping.

    Endonym   pairs packed whole into rows of 1024 tokens, each side blind to the others; train(), logs on
    TRL       RewardTrainer, 4 pairs at a time, gradients accumulated, its logging and saving off
"""

import json
from pathlib import Path
from typing import Any

from benchmarks import learning, material
from benchmarks.compare import Arm, compare, ratios, spread
from benchmarks.learning import WARMUP
from benchmarks.sft import TOLERANCE, differences, same_work
from benchmarks.turns import Steps, Turns

AT_ONCE = 4
"""Pairs of one forward pass of TRL: as many texts as the rows of the other parts."""

LENGTH = 2 * material.ROW
"""Of a packed row: the longest pair fits."""


def run(
    shape: material.Shape, precision: str, threads: int, repeats: int, folder: Path, note, *,
    peers: bool = True, per_turn: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """The comparison of one shape and precision: figures of each arm, ratios to Endonym's."""
    from endonym.data.pairs import padding
    from endonym.model import reward
    from endonym.tokenizer.folder import Tokenizer

    words = material.tokenizer(shape.vocab_size)
    words.save(folder / "base")
    material.save_model(shape, folder / "base")
    pad = padding(words)
    words = Tokenizer(words.backend, words.named | {"pad_token": pad}, words.template)
    net = reward.start(folder / "base", seed=0)
    reward.save(net, folder, pad_id=words.special(pad), eos_ids=sorted(words.stop_ids))
    words.save(folder)
    block = material.block(words)
    pairs = [list(pair) for pair in zip(block.messages[::2], block.messages[1::2])]
    (folder / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
    tokens = sum(len(words.encode_whole(side)) for pair in pairs for side in pair)
    spec = {"folder": str(folder), "precision": precision, "per_turn": per_turn}
    arms = [Arm("Endonym", "benchmarks.reward:endonym", spec)]
    if peers:
        arms.append(Arm("TRL", "benchmarks.reward:trl", spec))
    records = compare(arms, [{"key": "step"}], repeats=repeats, threads=threads, note=note)
    ours, rows = records["Endonym"], []
    for arm in arms:
        one = records[arm.name]
        rows.append(
            {
                "arm": arm.name,
                "tokens_per_cpu_second": spread([per_turn * tokens / c for c in one.cpu["step"]]),
                "tokens_per_second": spread([per_turn * tokens / w for w in one.wall["step"]]),
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
        "parameters": sum(weight.numel() for weight in net.parameters()),
        "precision": precision,
        "threads": threads,
        "repeats": repeats,
        "tolerance": TOLERANCE[precision],
        "difference": max(differences(rows)),
        "pairs": len(pairs),
        "tokens": tokens,
        "rows": rows,
    }


# The arms, each in a process of its own


def endonym(spec: dict[str, Any], turns: Turns) -> None:
    """PairLoader and train(): what the reward_model stage runs."""
    from endonym.data.document import Preference
    from endonym.data.pairs import PairLoader, PairStore
    from endonym.model import reward
    from endonym.stages.reward_model import Pairwise
    from endonym.tokenizer.folder import Tokenizer
    from endonym.train.config import TrainConfig
    from endonym.train.loop import train

    scratch = Path(spec["scratch"])
    rows = [
        Preference(str(number), [], chosen, rejected)
        for number, (chosen, rejected) in enumerate(_pairs(spec))
    ]
    store = PairStore.build(scratch / "pairs", rows, Tokenizer.load(spec["folder"]), key="pairs")
    whole = PairLoader([store], rows_per_step=1, row_length=LENGTH)
    loader = PairLoader([store], rows_per_step=whole.steps_per_epoch, row_length=LENGTH)
    steps = Steps(turns, WARMUP, spec["per_turn"])
    config = TrainConfig(**learning.settings(spec))
    watched = learning.Watched(loader, steps, spec)
    net, objective = reward.load(spec["folder"]), Pairwise(True, 0.0)
    train(net, objective, watched, config, learning.context(spec))


def trl(spec: dict[str, Any], turns: Turns) -> None:
    """TRL's RewardTrainer on the same ids."""
    import datasets
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    from endonym.tokenizer.folder import Tokenizer

    learning.hushed()
    words, pairs = Tokenizer.load(spec["folder"]), _pairs(spec)
    # Many copies, in order, so that no epoch ends (and no iterator is made anew) within a measurement.
    data = {
        f"{name}_ids": [words.encode_whole(pair[side]) for pair in pairs] * 64
        for side, name in enumerate(("chosen", "rejected"))
    }
    arguments = RewardConfig(
        max_length=LENGTH,
        **learning.arguments(spec, AT_ONCE, len(pairs) // AT_ONCE),
        train_sampling_strategy="sequential",
    )
    steps = Steps(turns, WARMUP, spec["per_turn"])
    Watched = learning.watched(RewardTrainer, steps)
    Watched(
        model=AutoModelForSequenceClassification.from_pretrained(spec["folder"]).float(),
        args=arguments,
        train_dataset=datasets.Dataset.from_dict(data),
        processing_class=AutoTokenizer.from_pretrained(spec["folder"]),
    ).train()


def _pairs(spec: dict[str, Any]) -> list[list[list[dict[str, str]]]]:
    return json.loads((Path(spec["folder"]) / "pairs.json").read_text(encoding="utf-8"))
