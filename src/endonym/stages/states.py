"""The hidden states of a teacher on given conversations, kept: distillation without the teacher."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.errors import DataError
from endonym.core.stage import Outcome, Slot, Stage

if TYPE_CHECKING:
    from torch import Tensor

    from endonym.rollouts.asked import Asked

TOKENS = {"cpu": 2048, "cuda": 1 << 15}
"""Of the conversations that are read at once, where the context leaves it open."""


class StatesConfig(Config):
    row_length: int = Field(default=4096, gt=1)
    """Tokens of a prompt with its answer, at most, and never more than the teacher's context; longer ones
    are left out and counted. Not less than in the distillation that is to read them, or that leaves them
    out as well."""
    turns: Literal["last", "every"] = "last"
    """Answers of a conversation whose states are kept; as in the distillation that is to read them."""
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

    Answers are kept by their content, so that a distillation may mix and order them as it likes. On a CPU
    the teacher runs in float32. Figures: rows and tokens (of answers) that were kept, without (no answer to
    keep the states of), too_long, width, bytes.
    """
    import numpy as np
    import torch

    from endonym.eval.needles import longest
    from endonym.model import hf
    from endonym.model.device import place
    from endonym.rollouts.pieces import PackedPieces, answered, least_padding
    from endonym.rollouts.states import write
    from endonym.rollouts.teacher import Teacher
    from endonym.stages.teaching import asked_stores
    from endonym.tokenizer.folder import Tokenizer

    words, device = Tokenizer.load(teacher.path), place(context)
    how: dict[str, Any] = {"template": config.template, "every": config.turns == "every"}
    plain = asked_stores(data, words, context, **how)
    read = plain
    if config.teacher_prompt_prefix:
        read = asked_stores(
            data, words, context, folder="teacher", prefix=config.teacher_prompt_prefix, **how
        )
    model = hf.load(teacher.path, dtype=torch.float32 if device.type == "cpu" else torch.bfloat16)
    rows, too_long, silent = [], [], 0
    for label, one in plain.items():
        answers = one.answer_lengths
        fits = (one.prompt_lengths + answers <= config.row_length) & (
            read[label].prompt_lengths + answers <= longest(model.config)
        )
        silent += int((answers == 0).sum())
        rows += [(label, int(n)) for n in np.flatnonzero(fits & (answers > 0))]
        too_long += [(label, int(n)) for n in np.flatnonzero(~fits & (answers > 0))]
    if not rows:
        raise DataError(
            "there is nothing to keep the states of",
            where="data",
            wanted=f"answers that fit {config.row_length} tokens with their prompts, and the teacher",
            got=f"{silent} rows without an answer, {len(too_long)} too long",
        )
    most = max(
        int(read[label].prompt_lengths[n] + plain[label].answer_lengths[n]) for label, n in rows
    )
    teaching = Teacher(model, device)

    def asked(stores: "dict[str, Asked]", places: list[tuple[str, int]]) -> list[tuple]:
        return [
            (
                np.asarray(stores[label].prompt(n), np.int64),
                np.asarray(plain[label].answer(n), np.int64),
            )
            for label, n in places
        ]

    def run(part: range) -> "list[Tensor]":
        pairs = asked(read, rows[part.start : part.stop])
        pieces = [answered(prompt, answer, 1.0) for prompt, answer in pairs]
        packed = PackedPieces(pieces, most, fit=least_padding)
        found = teaching.states(packed.part()).cpu()
        places = [place.last(len(answer)) for place, (_, answer) in zip(packed.places, pairs)]
        return [found[each.slice] for each in places]

    pairs = asked(plain, rows)
    tokens = [len(prompt) + len(answer) for prompt, answer in pairs]
    mean = max(1, sum(tokens) // len(tokens))
    work = context.scratch / "states"
    with context.console.bar("states", len(rows), unit="row") as bar:
        done = 0

        def told(count: int) -> None:
            nonlocal done
            if count > done:  # shards that stand there are told of, and the last one twice
                bar.advance(count - done)
            done = count

        write(
            work, pairs, run, model.head, config.precision,
            {"cap": model.cap, "teacher": teacher.address, "tokenizer": words.identity},
            too_long=asked(plain, too_long),
            at_once=context.rows_per_device or max(1, TOKENS[device.type] // mean), told=told,
        )  # fmt: skip
    shutil.copytree(work, out, dirs_exist_ok=True)
    words.save(out)
    figures = {
        "rows": len(rows),
        "without": silent,
        "too_long": len(too_long),
        "tokens": sum(len(answer) for _, answer in pairs),
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
