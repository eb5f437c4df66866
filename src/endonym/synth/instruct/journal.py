"""Every answer of a chat on the disk when it comes, found again by what was asked.

    <folder>/<first two of the key>/<key>.json    {"text": ..., "finish": ...}

key: sha256 of the model's name, the messages and the sampling. A file is written whole under another
name and renamed, so a kill loses no answer that had come, and several processes may share the folder. A
failed call is not written: the next run asks it again.

Answers of servers are kept for all recipes in ENDONYM_TEACHER_CACHE (~/.cache/endonym/teacher): a recipe
with another threshold asks nothing anew.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from endonym.core.artifact import machine_error
from endonym.rewards.base import said
from endonym.rewards.chat import Answer
from endonym.synth.instruct.chat import Chat, Request


def shared_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "") or Path.home() / ".cache"
    return Path(os.environ.get("ENDONYM_TEACHER_CACHE", "") or Path(home, "endonym", "teacher"))


class Journal:
    """A chat that remembers. asked: different requests since it was opened; failed: of those, calls that
    brought nothing."""

    def __init__(self, chat: Chat, folder: Path):
        self.chat, self.folder, self.failed = chat, folder, 0
        self._seen: set[str] = set()

    @property
    def asked(self) -> int:
        return len(self._seen)

    def ask(self, requests: Sequence[Request]) -> list[Answer | None]:
        """The answers in the requests' order, what was thought before them left out; None where the call
        failed. Equal requests are one."""
        keys = [each.key(self.chat.name) for each in requests]
        found = {key: self._kept(key) for key in dict.fromkeys(keys)}
        missing = {key: each for key, each in zip(keys, requests) if found[key] is None}
        self._seen.update(found)
        names = list(missing)

        def take(number: int, answer: Answer | None) -> None:
            if answer is not None:
                found[names[number]] = self._keep(names[number], answer)

        self.chat.answers(list(missing.values()), take)
        self.failed += sum(found[name] is None for name in names)
        told = {key: each and Answer(said(each.text), each.finish) for key, each in found.items()}
        return [told[key] for key in keys]

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def _kept(self, key: str) -> Answer | None:
        """None where it is not there, or damaged: then it is asked again and written anew."""
        try:
            told = json.loads(self._file(key).read_text(encoding="utf-8"))
            return Answer(str(told["text"]), str(told["finish"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _keep(self, key: str, answer: Answer) -> Answer:
        """The answer as it was written: half a surrogate pair, which a model may say, is no text."""
        text = answer.text.encode("utf-8", "replace").decode()
        file, told = self._file(key), json.dumps({"text": text, "finish": answer.finish})
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile("w", dir=file.parent, suffix=".part", delete=False) as part:
                part.write(told)
            os.replace(part.name, file)
        except OSError as error:
            with suppress(OSError, NameError):
                os.unlink(part.name)
            raise machine_error(error, file, len(told)) from error
        return Answer(text, answer.finish)
