"""What a stage writes that learns from its own answers (distill, rl): how much, in what room and time.

A teacher's own answers (references = "teacher") are not reckoned.
"""

from dataclasses import dataclass, replace
from math import ceil

from endonym.core.plan import Step
from endonym.model.budget import HALF, MASTER, Memory, cache_bytes, flops_per_token, parameters
from endonym.model.config import ModelConfig
from endonym.stages.machine import Machine


@dataclass(frozen=True)
class Drawing:
    """What a stage writes that learns from its own answers: `answers` in all, `at_once` in a batch, each
    of at most `longest` tokens, its prompt of at most `prompt`. group: answers to one prompt, of which a
    GPU draws those of rows_per_device prompts at a time; None: its whole share."""

    answers: float
    at_once: float
    longest: int
    prompt: int
    group: int | None = None

    def rows(self, machine: Machine) -> int:
        """Answers that one GPU draws at a time."""
        share = max(1, ceil(self.at_once / machine.count))
        if self.group is None or machine.rows_per_device is None:
            return share
        return min(share, self.group * machine.rows_per_device)

    @property
    def tokens(self) -> float:
        return self.answers * self.longest


def drawing_of(step: Step, steps: dict[str, Step]) -> Drawing | str | None:
    """Of a distillation or of reinforcement; None of what draws nothing; or why it is not known."""
    config = step.config
    if step.stage.name == "distill":
        count = optimizer_steps(step, steps)
        at_once = config.rows_per_step * config.lmbda
        if isinstance(count, str) or not at_once:
            return count if at_once else None
        prompt = max(1, config.row_length - config.max_completion)
        return Drawing(count * at_once, at_once, config.max_completion, prompt)
    if step.stage.name == "rl":
        count = optimizer_steps(step, steps)
        if isinstance(count, str):
            return count
        at_once = config.prompts_per_step * config.group
        return Drawing(
            count / config.updates * at_once,
            at_once,
            _longest_answer(step),
            config.max_prompt,
            config.group,
        )
    return None


def _longest_answer(step: Step) -> int:
    """Tokens of an answer, with tools of all its turns and of what the tools say."""
    config = step.config
    return config.agent.max_tokens if step.inputs.get("library") else config.sampling.max_tokens


def drawing_memory(
    drawing: Drawing, known: ModelConfig, machine: Machine, learning: Memory, half: bool
) -> Memory:
    """Of one GPU while answers are drawn: all weights whole, a cache for its share of them, and what a
    step in training (`learning`) leaves lying meanwhile."""
    size = HALF if half else MASTER
    rows = drawing.rows(machine)
    return replace(
        learning,
        gradients=0.0,
        activations=0.0,
        copies=size * parameters(known).total,
        logits=MASTER * rows * known.vocab_size,
        cache=cache_bytes(known, rows, drawing.prompt + drawing.longest, size),
    )


def drawing_seconds(drawing: Drawing, known: ModelConfig, machine: Machine) -> float:
    """A GPU writes its share of a batch at once, with all weights in bfloat16 in its memory."""
    rows = drawing.rows(machine)
    room = drawing.prompt + drawing.longest / 2  # of a cache that fills while it is written
    read = HALF * parameters(known).active + cache_bytes(known, 1, int(room)) * rows
    passes = drawing.answers / (machine.count * rows) * drawing.longest
    flops = drawing.tokens * flops_per_token(known, int(room), backward=False)
    reading = passes * read / machine.gpu.bandwidth
    return max(reading, flops / (machine.count * machine.gpu.peak * machine.mfu))


def tokens_of_a_step(step: Step) -> float:
    """What an optimizer step of reinforcement learns from, at most: every answer with its prompt, and in
    a share rho of the steps the rows of knowledge."""
    config, text = step.config, step.config.ink
    answers = config.prompts_per_step * config.group / config.updates
    a_step = answers * (config.max_prompt + _longest_answer(step))
    if step.inputs.get("knowledge") and text.lmbda:
        a_step += text.rho * text.rows * text.row_length
    return a_step


def optimizer_steps(step: Step, steps: dict[str, Step]) -> float | str:
    """Of a distillation or of reinforcement, or why they are not known: epochs of what is not made yet."""
    config = step.config
    if config.steps is not None:
        return config.steps
    slot = "prompts" if step.stage.name == "rl" else "data"
    rows = 0
    for name in step.inputs[slot].values():
        found = steps[name].found
        if found is None:
            return f"epochs of @{name}, which is not made yet"
        rows += found.figures[found.kind]
    if step.stage.name == "rl":
        return config.epochs * rows / config.prompts_per_step * config.updates
    return config.epochs * rows / config.rows_per_step
