"""One step of GRPO on the same weights, prompts and lengths: answers drawn, judged and learnt from.

Every arm draws 8 answers of 64 tokens to each prompt at temperature 1, has them judged by the same
function, and learns from them once: one AdamW step, clip 0.2 and 0.24, mean over tokens, advantages by
the group's deviation, no KL. The arms draw other random numbers, so their answers differ; what is
compared besides is how long these are, and the entropy of the distribution that they were drawn from.

Endonym is measured as a user runs it: train() with rollouts/groups.py, logs and rollouts written. TRL's
logging, saving and gradient checkpointing are off, there is no vLLM, and no judge takes any time.

    at once         32 or 80 answers in a forward and backward pass, TRL's way where memory allows
    8 at a time     gradients accumulated
"""

from pathlib import Path
from typing import Any

from benchmarks import learning, material
from benchmarks.compare import Arm, compare, ratios, spread
from benchmarks.turns import Steps, Turns
from endonym.core.errors import DataError

LEARNING_RATE = 1e-5
"""So low that the model stays what it was: every round then does the same work."""
WARMUP = 2
GROUP, LENGTH = 8, 64
PROMPTS = (4, 10)
"""Of a step."""
TOLERANCE = {"length": 0.05, "entropy": 0.03}
"""Largest relative differences of the arms' means in one step: of answers, some of which stop early."""


def run(
    shape: material.Shape, precision: str, threads: int, repeats: int, folder: Path, note, *,
    peers: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """The comparison of one shape at each number of prompts: figures of each arm, ratios to Endonym's."""
    words = material.tokenizer(shape.vocab_size)
    parameters = material.save_model(shape, folder, lively=True)
    words.save(folder)
    sizes = []
    for prompts in PROMPTS:
        spec = {"folder": str(folder), "precision": precision, "prompts": prompts}
        arms = [Arm("Endonym", "benchmarks.grpo:endonym", spec)]
        if peers:
            arms += [
                Arm("TRL, at once", "benchmarks.grpo:trl", {**spec, "rows": prompts * GROUP}),
                Arm("TRL, 8 at a time", "benchmarks.grpo:trl", {**spec, "rows": GROUP}),
            ]
        records = compare(arms, [{"key": "step"}], repeats=repeats, threads=threads, note=note)
        ours, rows = records[arms[0].name], []
        for arm in arms:
            one = records[arm.name]
            tokens = prompts * GROUP * one.ready["length"]
            rows.append(
                {
                    "arm": arm.name,
                    "cpu_seconds": spread(one.cpu["step"]),
                    "tokens_per_cpu_second": spread([tokens / cpu for cpu in one.cpu["step"]]),
                    "tokens_per_second": spread([tokens / wall for wall in one.wall["step"]]),
                    "peak_bytes": one.peak_bytes,
                    "before_bytes": one.ready["before_bytes"],
                    "length": one.ready["length"],
                    "entropy": one.ready["entropy"],
                    "cpu_ratio": ratios(ours.cpu["step"], one.cpu["step"]),
                    "wall_ratio": ratios(ours.wall["step"], one.wall["step"]),
                    "peak_ratio": one.peak_bytes / ours.peak_bytes,
                }
            )
        same_work(rows)
        sizes.append({"prompts": prompts, "rows": rows})
    return {
        "shape": shape.name,
        "parameters": parameters,
        "precision": precision,
        "threads": threads,
        "repeats": repeats,
        "group": GROUP,
        "length": LENGTH,
        "sizes": sizes,
    }


def same_work(rows: list[dict[str, Any]]) -> None:
    """DataError unless all arms draw answers as long, out of distributions as wide."""
    for name, most in TOLERANCE.items():
        first = rows[0][name]
        if not all(abs(row[name] - first) <= most * abs(first) for row in rows):
            raise DataError(
                "the arms do different work, so their speeds cannot be compared",
                where=name,
                wanted=f"a relative difference of at most {most}",
                got="; ".join(f"{row['arm']} {row[name]}" for row in rows),
            )


def page(each: dict[str, Any]) -> str:
    """The figures as Markdown."""
    from benchmarks.page import _arms, _title

    parts = [_title("A step of GRPO", each)]
    for size in each["sizes"]:
        lengths = ", ".join(f"{row['arm']} {row['length']:.1f}" for row in size["rows"])
        entropies = ", ".join(f"{row['entropy']:.2f}" for row in size["rows"])
        before = ", ".join(f"{row['before_bytes'] / 1e9:.2f}" for row in size["rows"])
        parts.append(
            f"{size['prompts']} prompts, {each['group']} answers each, at most {each['length']} tokens "
            f"(mean {lengths}; entropy {entropies}). Tokens are those drawn, seconds those of the whole "
            f"step. Resident before the first step: {before} GB.\n"
        )
        parts += [_arms(size["rows"]), ""]
    return "\n".join(parts)


def asked(folder: str, count: int) -> list[str]:
    """`count` questions of 8 to 64 tokens."""
    from endonym.tokenizer.folder import Tokenizer

    words = Tokenizer.load(folder)
    return [words.decode(ids) for ids in material.prompts(words, count)]


def judged(prompts, completions, completion_ids, **columns) -> list[float]:
    """The share of even ids: any two answers differ, and it takes no time."""
    return [sum(token % 2 == 0 for token in ids) / max(len(ids), 1) for ids in completion_ids]


# The arms, each in a process of its own


def endonym(spec: dict[str, Any], turns: Turns) -> None:
    """hf.load, Groups, train(): what the rl stage runs."""
    from benchmarks import machine
    from endonym.data.document import Prompt
    from endonym.model import hf
    from endonym.rewards.mix import Mix
    from endonym.rollouts.draw import Draw
    from endonym.rollouts.groups import Groups
    from endonym.rollouts.order import Order
    from endonym.stages.rl import InkGrpo, RlConfig, plan_of
    from endonym.tokenizer.folder import Tokenizer
    from endonym.train.loop import train

    scratch = Path(spec["scratch"])
    config = RlConfig(
        steps=100_000,
        prompts_per_step=spec["prompts"],
        group=GROUP,
        sampling={"temperature": 1.0, "max_tokens": LENGTH},
        reward={"judged": 1.0},
        row_length=material.ROW,
        learning_rate=LEARNING_RATE,
        weight_decay=0,
        precision=spec["precision"],
    )
    prompts = [
        Prompt(str(n), [{"role": "user", "content": text}])
        for n, text in enumerate(asked(spec["folder"], spec["prompts"]))
    ]
    plan = plan_of(config, agentic=False)
    draw = Draw(
        Order({"text": prompts}, {}),
        Tokenizer.load(spec["folder"]),
        Mix({"judged": (judged, 1.0)}),
        plan,
        at_once=spec["prompts"] * GROUP,
    )
    steps = Steps(turns, WARMUP, 1)

    class Watched(Groups):
        """The loop asks for a step's figures where the step begins."""

        def state(self, step: int) -> dict[str, float]:
            if step == 0:
                steps.facts["before_bytes"] = machine.peak_bytes()
            if step == WARMUP:
                told = super().state(step - 1)
                steps.facts["length"] = told["completions/mean_length"]
                steps.facts["entropy"] = told["entropy"]
            steps.boundary()
            return super().state(step)

    context = learning.context(spec)
    loader = Watched(draw, None, scratch / "rollouts", "benchmark")
    train(hf.load(spec["folder"]), InkGrpo(plan.policy), loader, config, context)


def trl(spec: dict[str, Any], turns: Turns) -> None:
    """TRL's GRPOTrainer on the same prompts; `rows` answers at once, the rest accumulated."""
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from benchmarks import machine

    learning.hushed()
    texts = asked(spec["folder"], spec["prompts"])
    rows = [{"prompt": [{"role": "user", "content": text}]} for text in texts]
    answers = spec["prompts"] * GROUP
    arguments = GRPOConfig(
        **learning.arguments(spec, spec["rows"], answers // spec["rows"], LEARNING_RATE),
        num_generations=GROUP,
        max_completion_length=LENGTH,
        temperature=1.0,
        epsilon=0.2,
        epsilon_high=0.24,
        beta=0.0,
        loss_type="dapo",
        scale_rewards="group",
    )
    steps = Steps(turns, WARMUP, 1)

    class Boundary(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if steps.begun == 0:
                steps.facts["before_bytes"] = machine.peak_bytes()
            if steps.begun == WARMUP:
                told = trainer._metrics["train"]
                steps.facts["length"] = told["completions/mean_length"][-1]
                passes = answers // spec["rows"]
                steps.facts["entropy"] = sum(told["entropy"][-passes:]) / passes
            steps.boundary()

    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(spec["folder"]).float(),
        reward_funcs=judged,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows * 64),
        processing_class=AutoTokenizer.from_pretrained(spec["folder"]),
        callbacks=[Boundary()],
    )
    trainer.train()
