"""What is asked and, where the data knows it, answered: prompts and answers as ids on disk.

    conversations or prompts -> Asked (ids, once) -> rollouts/distilled.py

Of a conversation the last assistant's turn is the answer and what stands before it the prompt, as in
TRL's GKD; what follows is left out. Or every assistant's turn is one, asked after all that stands before
it: where tools are used, the last turn alone shows what to say of an answer and never how to ask for it.
A prompt and a conversation without an assistant have no answer.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from endonym.core.errors import DataError
from endonym.data.document import Conversation, Messages, Prompt
from endonym.data.shard import built
from endonym.data.twofold import Twofold, write
from endonym.tokenizer.folder import Tokenizer

FORMAT = 1


class Asked(Twofold):
    """Prompts and answers of one source (data/twofold.py): row n's prompt, then its answer."""

    @property
    def prompt_lengths(self) -> np.ndarray:
        """Tokens of each prompt, [N] int64."""
        return np.diff(self.offsets)[::2]

    @property
    def answer_lengths(self) -> np.ndarray:
        """Tokens of each answer, its stop token included, [N] int64; 0 where there is none."""
        return np.diff(self.offsets)[1::2]

    def prompt(self, number: int) -> np.ndarray:
        """Ids up to the end of the generation prompt."""
        return self.both(number)[0]

    def answer(self, number: int) -> np.ndarray:
        """Ids of the data's own answer, up to its stop token."""
        return self.both(number)[1]

    @classmethod
    def build(
        cls,
        folder: Path | str,
        rows: Iterable[Conversation | Prompt],
        tokenizer: Tokenizer,
        *,
        key: str,
        prefix: str = "",
        variables: dict[str, Any] | None = None,
        every: bool = False,
    ) -> "Asked":
        """The store of `rows` at `folder`; key names their content.

        prefix:    a system text put before every prompt
        variables: of the chat template (Tokenizer.render)
        every:     all of an assistant's turns are asked, not the last alone

        What stands there already is used again (data/shard.built).
        """
        folder = Path(folder)
        told = json.dumps([FORMAT, key, tokenizer.identity, prefix, variables or {}, every])
        identity = hashlib.sha256(told.encode()).hexdigest()

        def written(aside: Path) -> dict[str, Any]:
            asked = _read(rows, tokenizer, prefix, variables or {}, every)
            return {"kind": "asked"} | write(aside, asked)

        built(folder, identity, written)
        return cls(folder)


def parted(
    row: Conversation | Prompt, every: bool = False
) -> list[tuple[Messages, dict[str, Any] | None]]:
    """(prompt, answer) of a row's last turn, or of every one; None: it has no answer."""
    if isinstance(row, Conversation):
        turns = [n for n, message in enumerate(row.messages) if message["role"] == "assistant"]
        if turns:
            return [(row.messages[:n], row.messages[n]) for n in (turns if every else turns[-1:])]
    return [(row.messages, None)]


def prefixed(messages: Messages, prefix: str) -> Messages:
    """The messages after a system text; one that they begin with follows it in the same turn."""
    if not prefix:
        return messages
    first = messages[0] if messages else {}
    if first.get("role") == "system" and isinstance(first.get("content"), str):
        return [{**first, "content": f"{prefix}\n\n{first['content']}"}, *messages[1:]]
    return [{"role": "system", "content": prefix}, *messages]


def ids_of(
    tokenizer: Tokenizer,
    messages: Messages,
    answer: dict[str, Any] | None,
    tools: list[dict[str, Any]] | None = None,
    variables: dict[str, Any] | None = None,
) -> tuple[list[int], list[int]]:
    """Ids of a prompt, and of its answer up to the stop token; [] for no answer."""
    variables = variables or {}
    prompt = tokenizer.encode_prompt(messages, tools or None, **variables)
    if answer is None:
        return prompt, []
    read = [{**m, "weight": 0} if m["role"] == "assistant" else m for m in messages]
    learnt = {name: value for name, value in answer.items() if name != "weight"}
    ids, weights = tokenizer.weighted_rows([*read, learnt], tools or None, **variables)[-1]
    assert ids[: len(prompt)] == prompt, "a prompt is an exact prefix of its training row"
    end = 1 + max(n for n, weight in enumerate(weights) if weight)
    return prompt, ids[len(prompt) : end]


def _read(
    rows: Iterable[Conversation | Prompt],
    tokenizer: Tokenizer,
    prefix: str,
    variables: dict[str, Any],
    every: bool,
) -> Iterator[tuple[tuple[list[int], list[int]], str, str]]:
    """((prompt, answer), language, source) of every turn that is asked."""
    turns = ((row, *turn) for row in rows for turn in parted(row, every))
    for row, messages, answer in turns:
        try:
            if not messages:
                raise DataError("there is nothing to ask", wanted="a message before the answer")
            both = ids_of(
                tokenizer, prefixed(messages, prefix), answer, getattr(row, "tools", None),
                variables,
            )  # fmt: skip
        except DataError as error:
            raise DataError(
                f"row {row.id} cannot be asked: {error.what}",
                where=error.where, wanted=error.wanted, got=error.got, do=error.do,
            ) from None  # fmt: skip
        yield both, row.language, row.source


def digests(pairs: Iterable[tuple[Sequence[int], Sequence[int]]]) -> np.ndarray:
    """16 bytes that name each (prompt, answer), [N, 16] uint8."""
    found = [
        hashlib.blake2b(
            len(prompt).to_bytes(8, "little")
            + np.concatenate([prompt, answer]).astype(np.uint32).tobytes(),
            digest_size=16,
        ).digest()
        for prompt, answer in pairs
    ]
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, 16)
