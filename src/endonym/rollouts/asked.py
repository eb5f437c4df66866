"""What is asked and, where the data knows it, answered: prompts and answers as ids on disk.

    conversations or prompts -> Asked (ids, once) -> rollouts/distilled.py

Of a conversation the last assistant's turn is the answer and what stands before it the prompt, as in
TRL's GKD; what follows is left out. A prompt and a conversation without an assistant have no answer.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from endonym.core.artifact import describe_files
from endonym.core.errors import DataError
from endonym.data.document import Conversation, Messages, Prompt
from endonym.data.shard import Labels, compare, read_meta, write_meta
from endonym.tokenizer.folder import Tokenizer

FORMAT = 1


class Asked:
    """Prompts and answers of one source, memory-mapped: row n's prompt, then its answer.

    ids.bin (uint32), offsets.npy (int64 [2 N + 1]: where each prompt and each answer begins),
    languages.npy and sources.npy as in data/shard.py.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.meta = read_meta(self.folder)
        compare(self.folder, self.meta["files"], full=False)
        self.offsets = np.load(self.folder / "offsets.npy")
        file = self.folder / "ids.bin"
        empty = file.stat().st_size == 0  # which cannot be mapped
        self.ids = np.empty(0, np.uint32) if empty else np.memmap(file, np.uint32, mode="r")
        self.languages, self.sources = (
            Labels(self.meta[name], np.load(self.folder / f"{name}.npy"))
            for name in ("languages", "sources")
        )

    def __len__(self) -> int:
        return len(self.offsets) // 2

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def identity(self) -> str:
        return self.meta["identity"]

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
        return self.ids[self.offsets[2 * number] : self.offsets[2 * number + 1]]

    def answer(self, number: int) -> np.ndarray:
        """Ids of the data's own answer, up to its stop token."""
        return self.ids[self.offsets[2 * number + 1] : self.offsets[2 * number + 2]]

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
    ) -> "Asked":
        """The store of `rows` at `folder`; key names their content.

        prefix:    a system text put before every prompt
        variables: of the chat template (Tokenizer.render)

        As TokenStore.build: what stands there already is used again, and a kill leaves no half store.
        """
        folder = Path(folder)
        told = json.dumps([FORMAT, key, tokenizer.identity, prefix, variables or {}])
        identity = hashlib.sha256(told.encode()).hexdigest()
        if (folder / "meta.json").is_file() and read_meta(folder).get("identity") == identity:
            return cls(folder)
        aside = folder.with_name(folder.name + ".partial")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        meta = _write(aside, rows, tokenizer, prefix, variables or {})
        write_meta(aside, meta | {"identity": identity, "files": describe_files(aside)})
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
        return cls(folder)


def parted(row: Conversation | Prompt) -> tuple[Messages, dict[str, Any] | None]:
    """(prompt, answer) of a row; None: it has no answer."""
    if isinstance(row, Conversation):
        turns = [n for n, message in enumerate(row.messages) if message["role"] == "assistant"]
        if turns:
            return row.messages[: turns[-1]], row.messages[turns[-1]]
    return row.messages, None


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


def _write(
    folder: Path,
    rows: Iterable[Conversation | Prompt],
    tokenizer: Tokenizer,
    prefix: str,
    variables: dict[str, Any],
) -> dict[str, Any]:
    lengths: list[int] = []
    names: dict[str, dict[str, int]] = {"languages": {}, "sources": {}}
    codes: dict[str, list[int]] = {"languages": [], "sources": []}
    with (folder / "ids.bin").open("wb") as file:
        for row in rows:
            messages, answer = parted(row)
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
            for ids in both:
                file.write(np.asarray(ids, np.uint32).tobytes())
                lengths.append(len(ids))
            for name, label in (("languages", row.language), ("sources", row.source)):
                codes[name].append(names[name].setdefault(label, len(names[name])))
    np.save(folder / "offsets.npy", np.cumsum([0, *lengths], dtype=np.int64))
    for name, numbers in codes.items():
        np.save(folder / f"{name}.npy", np.asarray(numbers, np.int32))
    return {"kind": "asked", **{name: list(found) for name, found in names.items()}}


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
