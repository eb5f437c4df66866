"""Instructions with a checkable constraint and replies that obey: AutoIF for a language (synth/instruct)."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from endonym.core.artifact import Artifact
from endonym.core.context import Context
from endonym.core.errors import DataError
from endonym.core.stage import Outcome, Slot, Stage
from endonym.synth.instruct.settings import Settings, check


def instruct(
    config: Settings,
    context: Context,
    out: Path,
    *,
    queries: dict[str, Artifact],
    teacher: Artifact | None,
) -> Outcome:
    """conversations.parquet: a conversation's columns (data/document.py), `checks` and `score`.

    checks: what the reply obeys, for rewards/constraints.py, or {"type": "function", "functions":
    [source, ...]} for a verifier that the teacher wrote (synth/instruct/verification.py runs both).
    score: the judge's, null where nothing was judged. task: the constraint's name.

    queries: first user turns of conversations, prompts or items; system prompts are left to the
    constraint. teacher: a model folder that answers in place of a server.

    With a teacher the made constraints stand in constraints.jsonl with functions, accuracy and cases. A
    run that was cut off asks only what its journal of calls does not hold. Figures: what each step took
    and dropped by reason, samples by constraint, by place and by language, calls that were asked and
    that failed, and who answered and judged.
    """
    from endonym.data.document import write_table
    from endonym.synth.instruct import composition, pool
    from endonym.synth.instruct.pipeline import Steps, by_model, by_rule

    has_teacher = check(config, teacher is not None)
    steps: Steps = defaultdict(Counter)
    found = composition.once(_queries(queries, config.language), steps["queries"])
    by: dict[str, Counter[str]] = {
        "constraint": Counter(),
        "place": Counter(),
        "language": Counter(),
    }
    figures: dict[str, Any] = {"teacher": "none: known replies, edited by rule", "judge": "none"}
    if has_teacher:
        chat, judge = _chats(config, context, teacher)
        figures |= {"teacher": chat.chat.name}
        figures |= {"judge": judge.chat.name} if config.judge_above is not None else {}
        made, runner = _made(config, chat, out, steps)
        packed = {language: pool.kinds(language) for language in config.languages}
        samples = by_model(found, packed, made, chat, judge, config, runner, steps)
    else:
        packed = {
            language: pool.kinds(language)
            for language in dict.fromkeys((config.language, *config.languages))
        }
        samples = by_rule(found, packed, config, steps)
    count = write_table(out / "conversations.parquet", _rows(samples, config.amount, by, steps))
    if has_teacher:
        figures["calls"] = {
            name: {"asked": each.asked, "failed": each.failed}
            for name, each in {
                "teacher": chat,
                **({"judge": judge} if config.judge else {}),
            }.items()
        }
    figures |= {"conversations": count, "steps": {name: dict(each) for name, each in steps.items()}}
    figures |= {f"by_{name}": dict(sorted(each.items())) for name, each in by.items()}
    licences = {licence: None for one in queries.values() for licence in one.record["licences"]}
    return Outcome(figures, list(licences))


def _queries(queries: dict[str, Artifact], language: str) -> Iterator[Any]:
    """The query of each row, or why it has none."""
    from endonym.data.document import Conversation, Prompt, read_table
    from endonym.synth.instruct.composition import query_of
    from endonym.tasks.base import read_items, task_for

    for one in queries.values():
        if one.kind == "items":
            for item in read_items(one.file("items.parquet")):
                if item.kind == "constraint":
                    yield "has constraints already"
                    continue
                yield query_of(
                    item.id, item.messages, item.language or language, task_for(item.kind).target(item),
                    source=item.source, licence=item.licence,
                )  # fmt: skip
            continue
        kind = Conversation if one.kind == "conversations" else Prompt
        for row in read_table(one.file(f"{one.kind}.parquet"), kind):
            answer = row.columns.get("answer") if isinstance(row, Prompt) else ""
            yield query_of(
                row.id, row.messages, row.language or language,
                answer if isinstance(answer, str) else "",
                source=row.source, licence=row.licence,
            )  # fmt: skip


def _chats(config: Settings, context: Context, teacher: Artifact | None) -> tuple[Any, Any]:
    """(teacher, judge), each with its journal."""
    from endonym.synth.instruct.chat import Own, Served
    from endonym.synth.instruct.journal import Journal, shared_folder

    if teacher is not None:
        from endonym.model.device import settled

        own = Own(teacher, settled(context), config.precision)
        chat = Journal(own, context.scratch / "answers")
    else:
        chat = Journal(Served.named(config.teacher, "ENDONYM_TEACHER"), shared_folder())
    judge = chat
    if config.judge:
        judge = Journal(Served.named(config.judge, "ENDONYM_JUDGE"), shared_folder())
    return chat, judge


def _made(config: Settings, chat: Any, out: Path, steps: Any) -> tuple[list[Any], Any]:
    """(constraints that the teacher wrote, what runs their functions). MachineError where there is no
    sandbox: such functions are never run without one."""
    if not config.constraints:
        return [], None
    from endonym.rewards.sandbox import Sandbox
    from endonym.synth.instruct.pipeline import made
    from endonym.synth.instruct.running import Runner

    runner = Runner(Sandbox.open())
    found, verified = made(chat, config, runner, steps)
    by_functions = {tuple(each.functions): each for each in verified}
    with (out / "constraints.jsonl").open("w", encoding="utf-8") as file:
        for each in found:
            known = by_functions[tuple(each.check["functions"])]
            row = {"name": each.name, "language": each.language, "texts": each.texts}
            row |= {"functions": known.functions, "accuracy": known.accuracy, "cases": known.cases}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return found, runner


def _rows(
    samples: Iterator[Any], amount: int | None, by: dict[str, Counter[str]], steps: Any
) -> Iterator[Any]:
    """The samples as conversations, counted; none twice. DataError, with the counts, where none is left."""
    from endonym.synth.instruct.emission import checked

    rows = islice(checked(samples, steps["emission"]), amount)
    first = next(rows, None)
    if first is None:
        raise DataError(
            "no sample is left",
            where="instruct",
            wanted="at least one reply that obeys",
            got=json.dumps({name: dict(each) for name, each in steps.items()}, ensure_ascii=False),
        )
    for row, place in chain([first], rows):
        by["constraint"][row.task.partition("/")[0]] += 1
        by["language"][row.language] += 1
        by["place"][place] += 1
        yield row


STAGE = Stage(
    name="instruct",
    version=1,
    kind="conversations",
    config=Settings,
    slots={
        "queries": Slot("conversations or prompts or items", many=True),
        "teacher": Slot("model", optional=True),
    },
    function=instruct,
)
