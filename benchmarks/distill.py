"""One step of on-policy distillation on the same weights, the same teacher and the same prompts.

Every arm answers PROMPTS prompts of 8 to 64 tokens with ANSWER tokens each at temperature 1 without
truncation, runs the teacher on them, and takes one step of AdamW on the forward KL of the whole
vocabulary, a mean over tokens. Student and teacher have one shape and different weights.

    Endonym            all prompts in one batch, packed rows; train() with its live loader, logs on and
                       every step's answers kept on the disk
    TRL, all at once   GKDTrainer with all prompts in one micro-batch
    TRL, 4 at a time   the same work in micro-batches of 4, which takes less memory and more time

What is drawn differs from arm to arm, so losses agree only about (DRAWN); that all do the same work is
seen on the same prompts with given answers (lmbda 0), where losses must agree to sft.TOLERANCE, and
which is measured too. TRL's logging and saving are off.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks import learning, material
from benchmarks.compare import Arm, compare, ratios, spread
from benchmarks.learning import WARMUP
from benchmarks.sft import TOLERANCE, differences, same_work
from benchmarks.turns import Steps, Turns

PROMPTS, ANSWER = 16, 64
DRAWN = 0.2
"""Largest relative difference of losses on drawn answers, means over a thousand tokens of 16 random texts."""

LENGTH = 160
"""A prompt with its template and its answer fits: TRL's longest row."""

ROW = 512
"""Endonym's rows, which hold several conversations each, as in our recipes."""


def run(
    shape: material.Shape, precision: str, threads: int, repeats: int, folder: Path, note, *,
    peers: bool = True, per_turn: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """The comparison of one shape and precision: figures of each arm with drawn and with given answers."""
    words = material.tokenizer(shape.vocab_size)
    parameters = save(shape, words, folder)
    talks = conversations(words)
    (folder / "talks.json").write_text(json.dumps(talks), encoding="utf-8")
    tokens = sum(len(prompt) + len(answer) for prompt, answer in map(parts(words), talks))
    found = {}
    for name, lmbda in (("drawn", 1.0), ("given", 0.0)):
        spec = {
            "folder": str(folder), "precision": precision, "per_turn": per_turn, "lmbda": lmbda,
        }  # fmt: skip
        arms = [Arm("Endonym", "benchmarks.distill:endonym", spec)]
        if peers:
            arms += [
                Arm("TRL, all at once", "benchmarks.distill:trl", {**spec, "rows": PROMPTS}),
                Arm("TRL, 4 at a time", "benchmarks.distill:trl", {**spec, "rows": 4}),
            ]
        records = compare(arms, [{"key": "step"}], repeats=repeats, threads=threads, note=note)
        ours, rows = records["Endonym"], []
        for arm in arms:
            one = records[arm.name]
            rows.append(
                {
                    "arm": arm.name,
                    "cpu_seconds": spread([cpu / per_turn for cpu in one.cpu["step"]]),
                    "tokens_per_cpu_second": spread(
                        [per_turn * tokens / cpu for cpu in one.cpu["step"]]
                    ),
                    "tokens_per_second": spread([per_turn * tokens / w for w in one.wall["step"]]),
                    "peak_bytes": one.peak_bytes,
                    "ready_bytes": one.ready["bytes"],
                    "losses": one.ready["losses"],
                    "cpu_ratio": ratios(ours.cpu["step"], one.cpu["step"]),
                    "wall_ratio": ratios(ours.wall["step"], one.wall["step"]),
                    "peak_ratio": one.peak_bytes / ours.peak_bytes,
                }
            )
        tolerance = DRAWN if lmbda else TOLERANCE[precision]
        same_work(rows, tolerance)
        found[name] = {"rows": rows, "tolerance": tolerance, "difference": max(differences(rows))}
    return {
        "shape": shape.name,
        "parameters": parameters,
        "precision": precision,
        "threads": threads,
        "repeats": repeats,
        "prompts": PROMPTS,
        "answer": ANSWER,
        "tokens": tokens,
        **found,
    }


def save(shape: material.Shape, words, folder: Path) -> int:
    """Student and teacher as folders of their own; the student's parameters."""
    import torch

    from endonym.model import hf

    parameters = material.save_model(shape, folder / "student", lively=True)
    teacher = hf.new(hf.load(folder / "student").config, seed=1)
    with torch.no_grad():
        for name, weight in teacher.named_parameters():
            if weight.dim() >= 2 and "embed" not in name:
                weight *= 4
    hf.save(teacher, folder / "teacher", family=shape.family)
    for name in ("student", "teacher"):
        words.save(folder / name)
    return parameters


def conversations(words) -> list[list[dict[str, str]]]:
    """PROMPTS exchanges; every answer has ANSWER tokens, its stop token included."""
    asked = material.prompts(words, PROMPTS)
    pool = iter(material.prompts(words, 50 * PROMPTS, 1, shortest=2 * ANSWER, longest=2 * ANSWER))
    talks = []
    for prompt in asked:
        while True:
            # Where a stretch of text begins, tokens may join; so it is tried whether they stay as many.
            answer = words.decode(next(pool)[: ANSWER - 1])
            talk = [
                {"role": "user", "content": words.decode(prompt)},
                {"role": "assistant", "content": answer},
            ]
            if len(parts(words)(talk)[1]) == ANSWER:
                talks.append(talk)
                break
    return talks


def parts(words):
    """talk -> ids of its prompt and of its answer."""
    from endonym.rollouts.asked import ids_of

    return lambda talk: ids_of(words, talk[:-1], talk[-1])


# The arms, each in a process of its own


def endonym(spec: dict[str, Any], turns: Turns) -> None:
    """Distilled and train(): what the distill stage runs."""
    from benchmarks import machine
    from endonym.core.artifact import Artifact
    from endonym.data.document import Conversation
    from endonym.engine.sampler import Sampling
    from endonym.model import hf
    from endonym.rollouts.asked import Asked
    from endonym.rollouts.distilled import Distilled
    from endonym.stages import teaching
    from endonym.stages.distill import DistillConfig
    from endonym.tokenizer.folder import Tokenizer
    from endonym.train.loop import train

    scratch, folder = Path(spec["scratch"]), Path(spec["folder"])
    words = Tokenizer.load(folder / "student")
    talks = json.loads((folder / "talks.json").read_text(encoding="utf-8"))
    rows = [Conversation(str(number), talk) for number, talk in enumerate(talks)]
    asked = {"talks": Asked.build(scratch / "talks", rows, words, key="talks")}
    config = DistillConfig(
        **learning.settings(spec),
        rows_per_step=PROMPTS,
        row_length=ROW,
        max_completion=ANSWER,
        lmbda=spec["lmbda"],
        aggregate="tokens",
    )
    context = learning.context(spec)
    student = hf.load(folder / "student")
    given = Artifact(folder / "teacher", {"address": "teacher"})
    view = teaching.live(config, context, words, student, given, {}, asked)
    # The tokenizer names fewer tokens than the models have rows, and TRL compares and draws all of
    # them: so both do.
    view.objective.rows = len(student.head)
    view.objective.head = view.guide.teacher.model.head.detach()
    loader = Distilled(
        list(asked.values()),
        view.guide,
        rows_per_step=PROMPTS,
        row_length=ROW,
        lmbda=config.lmbda,
        by="data",
        sampling=Sampling(max_tokens=ANSWER),
        stop_ids=words.stop_ids,
        aggregate="tokens",
        folder=scratch / "rollouts",
    )
    steps = Steps(turns, WARMUP, spec["per_turn"])
    steps.facts = {"bytes": machine.peak_bytes()}
    train(student, view.objective, learning.Watched(loader, steps, spec), config, context)


def trl(spec: dict[str, Any], turns: Turns) -> None:
    """TRL's GKDTrainer on the same ids."""
    import os

    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    from benchmarks import machine
    from endonym.tokenizer.folder import Tokenizer

    learning.hushed()
    folder = Path(spec["folder"])
    words = Tokenizer.load(folder / "student")
    talks = json.loads((folder / "talks.json").read_text(encoding="utf-8"))
    pairs = [parts(words)(talk) for talk in talks]
    # Many copies, in order, so that no epoch ends (and no iterator is made anew) within a measurement.
    data = {
        "prompt": [""] * len(pairs) * 64,
        "input_ids": [prompt + answer for prompt, answer in pairs] * 64,
        "attention_mask": [[1] * (len(prompt) + len(answer)) for prompt, answer in pairs] * 64,
        "completion_mask": [[0] * len(prompt) + [1] * len(answer) for prompt, answer in pairs] * 64,
    }
    arguments = GKDConfig(
        lmbda=spec["lmbda"],
        beta=0.0,
        temperature=1.0,
        max_new_tokens=ANSWER,
        max_length=LENGTH,
        **learning.arguments(spec, spec["rows"], PROMPTS // spec["rows"]),
        train_sampling_strategy="sequential",
    )
    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    steps = Steps(turns, WARMUP, spec["per_turn"])
    Watched = learning.watched(GKDTrainer, steps)

    def model(name: str):
        found = AutoModelForCausalLM.from_pretrained(folder / name).float()
        found.generation_config.eos_token_id = sorted(words.stop_ids)
        return found

    trainer = Watched(
        model=model("student"),
        teacher_model=model("teacher"),
        args=arguments,
        train_dataset=datasets.Dataset.from_dict(data),
        processing_class=tokenizer,
    )
    steps.facts = {"bytes": machine.peak_bytes()}
    trainer.train()


NOTE = """{prompts} prompts of 8 to 64 tokens and their templates, answers of {answer} tokens each, {tokens:,}
tokens a step; student and teacher of one shape, forward KL of the whole vocabulary. Drawn: every
answer is the student's own. Given: the data's answers, on which losses of the first steps differ by at
most {difference:.1e} of themselves. Above start: what a step adds to the memory that stood before the
first one, libraries, weights and data."""


def page(each: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    lines = [
        f"## Distillation: {each['parameters'] / 1e6:.1f}M parameters ({each['shape']}), "
        f"{each['precision']}, {each['threads']} thread{'s' * (each['threads'] > 1)}, "
        f"{each['repeats']} rounds\n",
        NOTE.format(**each, difference=each["given"]["difference"]),
        "",
        "| answers | arm | tokens per CPU second | CPU time | peak memory | above start |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("drawn", "given"):
        ours = each[name]["rows"][0]
        for row in each[name]["rows"]:
            speed, cpu = row["tokens_per_cpu_second"], row["cpu_ratio"]
            above = [one["peak_bytes"] - one["ready_bytes"] for one in (row, ours)]
            lines.append(
                f"| {name} | {row['arm']} | {speed['median']:,.0f} "
                f"({speed['low']:,.0f} to {speed['high']:,.0f}) "
                f"| {cpu['median']:.2f} ({cpu['low']:.2f} to {cpu['high']:.2f}) "
                f"| {row['peak_bytes'] / 1e6:,.0f} MB, {row['peak_ratio']:.2f} "
                f"| {above[0] / 1e6:,.0f} MB, {above[0] / above[1]:.2f} |"
            )
    return "\n".join([*lines, ""])
