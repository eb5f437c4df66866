"""What a recipe takes before anything is spent: for every stage that trains or writes, parameters,
tokens, operations, memory of each GPU, hours and money; and what would make it fit.

    hours = operations / (GPUs x peak x MFU)        writing: no less than it takes to read the weights
    cost  = hours x GPUs x price

Weights, gradients and moments are taken to lie evenly over the GPUs (as under FSDP), rows likewise.
Tokens are at most those said here: rows are taken to be full, answers to be as long as they may be,
and each row to be one document, which makes attention dear. A run in phases is the sum of them, and
takes the memory of the one that takes most. Where a stage learns from its own answers (distill, rl) their
writing is in its operations and hours: every token of a batch reads all weights, whole on every GPU, and
its cache once. With an adapter operations are those of training all
weights: an upper end, since gradients of frozen weights are not formed.
"""

from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from endonym.core.errors import RecipeError
from endonym.core.plan import Step
from endonym.model.budget import (
    MASTER,
    Count,
    Memory,
    flops_per_token,
    generation_memory,
    parameters,
    training_memory,
)
from endonym.stages.drawing import (
    drawing_memory,
    drawing_of,
    drawing_seconds,
    optimizer_steps,
    tokens_of_a_step,
)
from endonym.stages.machine import Machine, fits, remedies
from endonym.stages.shapes import Shapes

ROWS = 32
"""Answers written at once: eval/run.ROWS, which brings torch with it."""

PROMPT = 1024
"""Tokens of a prompt that a cache is given room for. Our choice."""

SAMPLE = 200
"""Conversations whose tokens are counted to know those of all."""

TRAINING = ("pretrain", "sft", "reward_model", "distill", "rl")
WRITING = ("evaluate",)


@dataclass(frozen=True)
class Budget:
    """One stage's. None: not known; `unknown` says why.

    memory: of one GPU. checkpointed, kept: its total with and without checkpointing
    remedies: what would make it fit, each of them enough; empty where it fits or nothing would
    """

    name: str
    kind: str
    parameters: Count | None = None
    tokens: float | None = None
    flops: float | None = None
    memory: Memory | None = None
    kept: float | None = None
    checkpointed: float | None = None
    fits: bool | None = None
    remedies: list[str] = field(default_factory=list)
    hours: float | None = None
    cost: float | None = None
    unknown: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; bytes, hours of the clock, floating-point operations."""
        plain = {key: value for key, value in asdict(self).items() if key != "name"}
        if self.memory is not None:
            plain["memory"] = asdict(self.memory) | {"total": self.memory.total}
        return plain


def budgets(
    steps: dict[str, Step],
    machine: Machine,
    *,
    tokens: dict[str, float] | None = None,
    data: tuple[Path, ...] = (),
) -> dict[str, Budget]:
    """By name, of every step that trains or writes.

    tokens: what the reader knows of a stage's tokens and the plan cannot; RecipeError where it names
    a stage that neither trains nor writes.
    """
    shapes, given = Shapes(steps, data), dict(tokens or {})
    found = {}
    for name, step in steps.items():
        if step.stage.name in TRAINING:
            found[name] = _training(step, steps, shapes, machine, given.pop(name, None))
        elif step.stage.name in WRITING:
            found[name] = _writing(step, steps, shapes, machine, given.pop(name, None))
    if given:
        raise RecipeError(
            "tokens are given for a stage that takes none, or that the recipe does not have",
            where="--tokens",
            wanted=f"one of {', '.join(found) or 'no stage of this recipe'}",
            got=", ".join(given),
        )
    return found


def _training(
    step: Step, steps: dict[str, Step], shapes: Shapes, machine: Machine, given: float | None
) -> Budget:
    config, known = step.config, shapes.model(step.name)
    unknown = []
    tokens = _training_tokens(step, steps, shapes) if given is None else given
    if isinstance(tokens, str):
        unknown.append(f"tokens: {tokens}")
        tokens = None
    if isinstance(known, str):
        return Budget(step.name, "training", tokens=tokens, unknown=[f"model: {known}", *unknown])
    teacher = None
    if isinstance(source := step.inputs.get("teacher"), str):
        teacher = shapes.model(source)
        if isinstance(teacher, str):
            unknown.append(f"teacher: {teacher}")
            teacher = None
    if getattr(config, "beta", 0) and step.stage.name == "rl":
        teacher = known  # the start model, for the KL
    drawing = drawing_of(step, steps)
    if isinstance(drawing, str):
        unknown.append(f"answers: {drawing}")
        drawing = None
    half = config.precision != "float32"
    stretches = _stretches(step, steps)
    learnt = {
        "optimizer": config.optimizer,
        "ema": bool(config.ema),
        "mtp": bool(getattr(config, "mtp_weight", 0.0) and known.mtp_modules),
        "adapter": config.adapter,
    }

    def rows(machine: Machine, stretch: Stretch) -> int:
        share = -(-stretch.rows // machine.count)
        return min(machine.rows_per_device or share, share)

    def memory(machine: Machine, length: int | None = None) -> Memory:
        taken = [
            training_memory(
                known,
                rows(machine, each) * min(each.length, length or each.length),
                devices=machine.count,
                half=half,
                checkpointing=machine.checkpointing,
                teacher=teacher,
                **learnt,
            )
            for each in stretches
        ]
        if drawing is not None:
            taken.append(drawing_memory(drawing, known, machine, taken[0], half))
        return max(taken, key=lambda one: one.total)

    longest = max(stretches, key=lambda one: rows(machine, one) * one.length)
    flops = None
    if tokens is not None:
        whole = sum(each.tokens or 0.0 for each in stretches)
        flops = 0.0
        for each in stretches:
            # Tokens that the reader gave, or epochs make, are shared out as the stretches are.
            part = each.tokens / whole if whole else 1 / len(stretches)
            cost = flops_per_token(known, each.length, mtp=learnt["mtp"])
            if teacher is not None:
                cost += flops_per_token(teacher, each.length, backward=False)
            flops += tokens * part * cost
    if machine.gpu and not half:
        unknown.append("hours: the table of GPUs has no peak in float32")
    seconds = _compute_seconds(flops, machine) if half else None
    if drawing is not None and flops is not None:
        flops += drawing.tokens * flops_per_token(known, drawing.longest, backward=False)
        if seconds is not None:
            seconds += drawing_seconds(drawing, known, machine)
    enough = fits(memory(machine), machine)
    return _timed(
        Budget(
            step.name,
            "training",
            parameters(known),
            tokens,
            flops,
            memory(machine),
            kept=memory(replace(machine, checkpointing=False)).total,
            checkpointed=memory(replace(machine, checkpointing=True)).total,
            fits=enough,
            remedies=[]
            if enough is not False
            else list(remedies(memory, machine, rows(machine, longest), longest.length)),
            unknown=unknown,
        ),
        machine,
        seconds,
    )


@dataclass(frozen=True)
class Stretch:
    """Part of a run whose steps are alike: rows of a step, their length, tokens in all (None: epochs)."""

    rows: int
    length: int
    tokens: float | None


def _stretches(step: Step, steps: dict[str, Step]) -> list[Stretch]:
    """The phases of a run, or the one that it is."""
    config = step.config
    if step.stage.name == "rl":
        a_step, count = tokens_of_a_step(step), optimizer_steps(step, steps)
        rows = max(1, round(a_step / config.row_length))
        return [
            Stretch(rows, config.row_length, None if isinstance(count, str) else count * a_step)
        ]
    rows, length = config.rows_per_step, config.row_length
    found = []
    for phase in getattr(config, "phases", []):
        each = (phase.rows_per_step or rows, phase.row_length or length)
        found.append(Stretch(*each, float(phase.num_steps(rows, length) * each[0] * each[1])))
    tokens = None if config.steps is None else float(config.steps * rows * length)
    return found or [Stretch(rows, length, tokens)]


def _writing(
    step: Step, steps: dict[str, Step], shapes: Shapes, machine: Machine, given: float | None
) -> Budget:
    known, unknown = shapes.model(step.inputs["model"]), []
    tokens = _written_tokens(step, steps) if given is None else given
    if isinstance(tokens, str):
        unknown.append(f"tokens: {tokens}")
        tokens = None
    if isinstance(known, str):
        return Budget(step.name, "writing", tokens=tokens, unknown=[f"model: {known}", *unknown])
    room = min(PROMPT + step.config.max_tokens, max(known.max_position_embeddings, 1))

    def memory(machine: Machine) -> Memory:
        rows = machine.count * (machine.rows_per_device or ROWS)
        return generation_memory(known, rows, room, devices=machine.count)

    flops = None if tokens is None else tokens * flops_per_token(known, room, backward=False)
    needed, seconds = memory(machine), None
    enough = fits(needed, machine)
    if machine.gpu and tokens is not None:
        # Every token of a batch needs all weights and its cache to be read once; a batch on each GPU.
        batches = tokens / ((machine.rows_per_device or ROWS) * machine.count)
        whole = MASTER * parameters(known).total / machine.count + needed.cache
        reading = batches * whole / machine.gpu.bandwidth
        seconds = max(_compute_seconds(flops, machine), reading)
    return _timed(
        Budget(
            step.name,
            "writing",
            parameters(known),
            tokens,
            flops,
            needed,
            fits=enough,
            remedies=[]
            if enough is not False
            else list(remedies(memory, machine, machine.rows_per_device or ROWS)),
            unknown=unknown,
        ),
        machine,
        seconds,
    )


def _timed(budget: Budget, machine: Machine, seconds: float | None) -> Budget:
    if seconds is None:
        return budget
    cost = None if machine.price is None else seconds / 3600 * machine.count * machine.price
    return replace(budget, hours=seconds / 3600, cost=cost)


def _compute_seconds(flops: float | None, machine: Machine) -> float | None:
    if flops is None or machine.gpu is None:
        return None
    return flops / (machine.count * machine.gpu.peak * machine.mfu)


# ---------------------------------------------------------------- tokens


def _training_tokens(step: Step, steps: dict[str, Step], shapes: Shapes) -> float | str:
    """Tokens that a training stage reads, at most; or why they are not known."""
    config = step.config
    if step.found and "tokens" in step.found.figures:
        return step.found.figures["tokens"]
    parts = [each.tokens for each in _stretches(step, steps)]
    if None not in parts:
        return sum(parts)
    if step.stage.name in ("distill", "rl"):
        count = optimizer_steps(step, steps)
        return count if isinstance(count, str) else count * config.rows_per_step * config.row_length
    words = shapes.tokenizer(step.inputs["model"])
    if words is None:
        return "epochs of rows that no tokenizer has cut yet"
    total = 0.0
    for name in step.inputs["data"].values():
        if steps[name].found is None:
            return f"epochs of @{name}, which is not made yet"
        total += _counted(steps[name], words, config.row_length)
    return config.epochs * total


def _counted(step: Step, words: Path, longest: int) -> float:
    """Tokens of made conversations or preferences, of a pair both sides: of SAMPLE of them, spread
    evenly, and so of all."""
    from endonym.data.document import Conversation, Preference, read_table
    from endonym.tokenizer.folder import Tokenizer

    tokenizer, kind = Tokenizer.load(words), step.found.kind
    number = step.found.figures[kind]

    def lengths(row: Any) -> list[int]:
        if kind == "conversations":
            return [len(ids) for ids, _ in tokenizer.training_rows(row.messages, row.tools or None)]
        sides = (row.prompt + row.chosen, row.prompt + row.rejected)
        return [len(tokenizer.encode_whole(side, row.tools or None)) for side in sides]

    every = read_table(
        step.found.file(f"{kind}.parquet"),
        Conversation if kind == "conversations" else Preference,
    )
    sums = [
        sum(min(length, longest) for length in lengths(one))
        for one in islice(every, 0, None, max(1, number // SAMPLE))
    ]
    return number * sum(sums) / max(len(sums), 1)


def _written_tokens(step: Step, steps: dict[str, Step]) -> float | str:
    """Tokens that an evaluation writes, at most. What it reads, prompts and texts, is not in it."""
    passes = 2 if step.config.sampled_at else 1
    exams, total = (step.inputs.get("items") or {}).values(), 0
    if not exams:
        return "it only reads, which is not reckoned"
    for name in exams:
        exam = steps[name]
        amounts = [source.amount for source in exam.config.sources]
        if exam.found:
            total += exam.found.figures["items"]
        elif None in amounts:
            return f"questions of @{name}, which is not made yet"
        else:
            total += sum(amounts)
    return passes * total * step.config.max_tokens


def total(found: dict[str, Budget], steps: dict[str, Step]) -> dict[str, Any]:
    """Hours, cost and operations of the stages that are still to run, as far as they are known."""
    left = [one for name, one in found.items() if steps[name].found is None]
    sums = {}
    for key in ("flops", "hours", "cost"):
        values = [value for one in left if (value := getattr(one, key)) is not None]
        sums[key] = sum(values) if values else None
    return sums | {"unknown": [one.name for one in left if one.unknown]}


def size(count: Count) -> str:
    """Parameters in a few letters: 8.19B, or 236.57B (23.67B active)."""
    whole = quantity(count.total)
    return whole if count.active == count.total else f"{whole} ({quantity(count.active)} active)"


def quantity(number: float) -> str:
    """A number in four digits or so: 8.19B, 1.02M, 320."""
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.2f}{letter}"
    return f"{number:g}"
