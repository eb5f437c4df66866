"""Search episodes in the invented statute book: question, search, what was found, answer.

    user       เมืองระฆังฟ้าห้ามทำอะไร
    assistant  search_law(query_list = ["เมืองระฆังฟ้า"])
    tool       [{"law_name": "เทศบัญญัติเมืองระฆังฟ้า", "section_num": "1", "text": "..."}, ...]
    assistant  ห้ามจุดประทัดที่สถานีรถไฟ

The tool's answer is what rollouts/library.py gives for that call, other towns' sections among it. Each
edition of the book gives the practised towns other bylaws: a model that remembered what it read of a
town before would be wrong, so what it learns is to search and to copy.

As conversations they are to be imitated. As documents, logs in plain text, they serve a small model's
tokenizer and continued pre-training: JSON is cut into words, and every repeated word teaches copying,
where an imitated episode teaches a few words of a hundred. Logs and conversations are of different
editions.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from random import Random
from typing import Any

from endonym.data.document import Conversation, Document, Prompt
from endonym.data.sections import Section
from endonym.rollouts.library import Library
from endonym.synth import bylaws

LOGS = 1000
"""The first edition that logs are written of; conversations begin at 0."""
SHOWN = 8
"""Every so manieth log begins with the tools themselves: their JSON is long and always the same."""


def conversations(
    language: str,
    groups: Sequence[str] = ("practice",),
    *,
    seed: int = 0,
    tasks: Sequence[str] = bylaws.TASKS,
    top: int = 3,
) -> Iterator[Conversation]:
    """Without end: edition after edition, in each every town once, in an order of its own.

    top: sections that one search finds; it should be the test's
    """
    for edition in count():
        yield from _edition(language, groups, seed, edition, tasks, top)


def documents(
    language: str,
    groups: Sequence[str] = ("practice",),
    *,
    seed: int = 0,
    tasks: Sequence[str] = bylaws.TASKS,
    top: int = 3,
) -> Iterator[Document]:
    """Without end: logs of such episodes, a line a turn, each turn as the chat template writes it."""
    editions = (_edition(language, groups, seed, edition, tasks, top) for edition in count(LOGS))
    return logs(chain.from_iterable(editions))


def logs(talks: Iterable[Conversation]) -> Iterator[Document]:
    """Episodes as plain text, a line a turn."""
    for number, talk in enumerate(talks):
        shown = talk.tools if number % SHOWN == 0 else []
        lines = [json.dumps(tool) for tool in shown]
        lines += [f"{message['role']}\n{_written(message)}" for message in talk.messages]
        text = "\n".join(lines)
        yield Document(f"{talk.id}/log", text, talk.language, talk.source, talk.licence)


def _written(message: dict[str, Any]) -> str:
    calls = [
        f"<tool_call>\n{json.dumps(call['function'], ensure_ascii=False)}\n</tool_call>"
        for call in message.get("tool_calls", [])
    ]
    return "\n".join([message["content"], *calls] if message["content"] else calls)


def _edition(
    language: str,
    groups: Sequence[str],
    seed: int,
    edition: int,
    tasks: Sequence[str],
    top: int,
) -> Iterator[Conversation]:
    how = {"seed": seed, "edition": edition}
    code, words = bylaws.written_in(language), bylaws.words_of(language)
    library = Library(bylaws.sections(language, groups, **how), code, top=top)
    known = bylaws.bylaws(language, groups, **how)
    random = Random(f"searches {language} {seed} {edition}")
    random.shuffle(known)
    for bylaw in known:
        task = random.choice(list(tasks))
        way, asked = random.choice(list(enumerate(words.questions(task, "train"))))
        name = f"searches/{language}/{bylaw.key}/{edition}/{task}/{way}"
        yield episode(
            library,
            name,
            asked.format(town=bylaw.town),
            words.query.format(town=bylaw.town),
            bylaws.politely(language, bylaw.answer(task), name),
            like=bylaws.section(language, bylaw),
            task=f"bylaws_{task}",
        )


def episode(
    library: Library,
    name: str,
    question: str,
    query: str,
    answer: str,
    *,
    like: Section,
    task: str,
) -> Conversation:
    """One search for `query` and the answer after it. like: a section of the same language, source and
    licence."""
    call = {
        "id": "call00001",
        "type": "function",
        "function": {"name": "search_law", "arguments": {"query_list": [query]}},
    }
    search = {"role": "assistant", "content": "", "tool_calls": [call]}
    state, messages = library.reset(Prompt(name, [{"role": "user", "content": question}]), 0)
    told, _ = library.step(state, search)
    return Conversation(
        name,
        [*messages, search, *told, {"role": "assistant", "content": answer}],
        like.language,
        like.source,
        like.licence,
        task,
        library.tools,
    )
