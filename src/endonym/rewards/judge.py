"""A judge: a prompt in, one number out, each question asked once ever.

An answer is kept under the sha256 of all that it depends on (model, instructions, prompt, length) in
the folder ENDONYM_JUDGE_CACHE (~/.cache/endonym/judge). A file is written whole under another name and
renamed, so any number of processes may share the folder. Where the judge is: rewards/chat.py, prefix
ENDONYM_JUDGE.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Lock
from typing import Any

from endonym.rewards.chat import Server, Unreached

TRIES = 2  # that a judge may take to say something that can be read


@dataclass(frozen=True)
class Question:
    """What one verdict depends on; its address is what the cache goes by."""

    model: str
    system: str
    user: str
    max_tokens: int

    def address(self) -> str:
        told = json.dumps([self.model, self.system, self.user, self.max_tokens], ensure_ascii=False)
        return hashlib.sha256(told.encode()).hexdigest()


class Judge:
    """Asks questions. read: the value in a judge's words, or None if they are nonsense."""

    def __init__(self, model: str, read: Callable[[str], float | None]):
        self.server = Server.from_environment(model, "ENDONYM_JUDGE")
        self.read = read
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self.folder = Path(os.environ.get("ENDONYM_JUDGE_CACHE") or Path(home, "endonym", "judge"))
        self.counts: Counter[str] = Counter(asked=0, cached=0, nonsense=0, unreached=0)
        self._lock = Lock()

    def values(self, questions: Sequence[Question]) -> list[float | None]:
        """One value a question, in order; None where the judge was not reached, or twice said nothing
        that can be read. Equal questions are asked once."""
        different = list(dict.fromkeys(questions))
        with ThreadPoolExecutor(self.server.parallel, thread_name_prefix="judge") as threads:
            found = dict(zip(different, threads.map(self._value, different)))
        return [found[question] for question in questions]

    def _value(self, question: Question) -> float | None:
        address = question.address()
        file = self.folder / address[:2] / f"{address}.json"
        kept = _kept(file)
        if kept is not None:
            self._count("cached")
            return kept
        messages = [
            {"role": "system", "content": question.system},
            {"role": "user", "content": question.user},
        ]
        for attempt in range(TRIES):
            self._count("asked")
            try:
                # A greedy judge that said nonsense would say it again: the second time it is drawn.
                answer = self.server.ask(
                    messages,
                    temperature=0 if attempt == 0 else 1,
                    max_tokens=question.max_tokens,
                )
            except Unreached:
                self._count("unreached")
                return None
            value = self.read(answer.text)
            if value is not None:
                _keep(file, {"model": question.model, "value": value, "text": answer.text})
                return value
        self._count("nonsense")
        return None

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1


def _kept(file: Path) -> float | None:
    """The value in a file of the cache; None where it is not there or damaged: then it is made anew."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))["value"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return value if isinstance(value, int | float) else None


def _keep(file: Path, record: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(
        "w", dir=file.parent, suffix=".part", delete=False, encoding="utf-8", errors="replace"
    ) as part:
        json.dump(record, part, ensure_ascii=False)
    os.replace(part.name, file)
