"""The hidden states of a teacher on given conversations, kept: distillation without the teacher."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.errors import DataError, RecipeError
from endonym.core.stage import Outcome, Slot, Stage

if TYPE_CHECKING:
    from torch import Tensor

TOKENS = {"cpu": 2048, "cuda": 1 << 15}
"""Of the conversations that are read at once, where the context leaves it open."""


class StatesConfig(Config):
    row_length: int = Field(default=4096, gt=1)
    """Tokens of a prompt with its answer, at most, as in the distillation that is to read them."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the states on the disk. float32 is exact; bfloat16 takes half the room and rounds to 8 bits."""
    teacher_prompt_prefix: str = ""
    """A system text that the teacher alone reads."""
    template: dict[str, bool | str | int | float] = {}
    """Variables of the chat template."""


def states(
    config: StatesConfig,
    context: Context,
    out: Path,
    *,
    teacher: Artifact,
    data: dict[str, Artifact],
) -> Outcome:
    """The teacher's states at every token of every conversation's last answer (rollouts/states.py).

    Answers are kept by their content, so that a distillation may mix and order them as it likes. What
    has no answer has no states, and is counted. On a CPU the teacher runs in float32.
    """
    import numpy as np
    import torch

    from endonym.eval.needles import longest
    from endonym.model import hf
    from endonym.model.device import place
    from endonym.rollouts.packing import packed
    from endonym.rollouts.states import write
    from endonym.rollouts.teacher import Teacher
    from endonym.stages.teaching import asked_stores
    from endonym.tokenizer.folder import Tokenizer

    words, device = Tokenizer.load(teacher.path), place(context)
    how: dict[str, Any] = {"template": config.template}
    plain = asked_stores(data, words, context, **how)
    read = plain
    if config.teacher_prompt_prefix:
        read = asked_stores(
            data, words, context, folder="teacher", prefix=config.teacher_prompt_prefix, **how
        )
    rows, silent = [], 0
    for label, one in plain.items():
        for number in range(len(one)):
            room = config.row_length - int(one.prompt_lengths[number])
            if room <= 0 or not one.answer_lengths[number]:
                silent += 1
                continue
            rows.append((label, number, min(room, int(one.answer_lengths[number]))))
    if not rows:
        raise DataError(
            "there is nothing to keep the states of",
            where="data", wanted=f"answers that fit rows of {config.row_length} tokens",
        )  # fmt: skip
    model = hf.load(teacher.path, dtype=torch.float32 if device.type == "cpu" else torch.bfloat16)
    most = max(int(read[label].prompt_lengths[n]) + room for label, n, room in rows)
    if most > longest(model.config):
        raise RecipeError(
            "a conversation is longer than the teacher's context", where="row_length",
            wanted=f"at most {longest(model.config)} tokens", got=most,
        )  # fmt: skip
    one = Teacher(model, device)

    def run(part: range) -> "list[Tensor]":
        pairs = [
            (
                np.asarray(read[label].prompt(n), np.int64),
                np.asarray(plain[label].answer(n)[:room], np.int64),
            )
            for label, n, room in rows[part.start : part.stop]
        ]
        batch, places = packed(pairs, [1.0] * len(pairs), most)
        found = one.states(batch).cpu()
        return [found[each.slice] for each in places]

    pairs = [(plain[label].prompt(n), plain[label].answer(n)[:room]) for label, n, room in rows]
    tokens = [len(prompt) + len(answer) for prompt, answer in pairs]
    mean = max(1, sum(tokens) // len(tokens))
    work = context.scratch / "states"
    with context.console.bar("states", len(rows), unit="row") as bar:
        done = 0

        def told(count: int) -> None:
            nonlocal done
            bar.advance(count - done)
            done = count

        write(
            work, pairs, run, model.head, config.precision,
            {"cap": model.cap, "teacher": teacher.address, "tokenizer": words.identity},
            at_once=context.rows_per_device or max(1, TOKENS[device.type] // mean), told=told,
        )  # fmt: skip
    shutil.copytree(work, out, dirs_exist_ok=True)
    words.save(out)
    answers = sum(room for *_, room in rows)
    figures = {
        "rows": len(rows),
        "without": silent,
        "tokens": answers,
        "width": int(model.head.shape[1]),
        "bytes": sum(file.stat().st_size for file in work.glob("states-*.bin")),
    }
    shutil.rmtree(work)
    licences = [each for a in (teacher, *data.values()) for each in a.record["licences"]]
    return Outcome(figures, licences)


STAGE = Stage(
    name="states",
    version=1,
    kind="states",
    config=StatesConfig,
    slots={"teacher": Slot("model"), "data": Slot("conversations", many=True)},
    function=states,
)
