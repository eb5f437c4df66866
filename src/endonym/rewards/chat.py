"""A model behind OpenAI's chat protocol: messages in, the assistant's words out, or the reason why not.

    POST {url}/chat/completions    model, messages, temperature, max_tokens, seed

Where it is stands in the environment, never in a recipe: for the prefix ENDONYM_JUDGE

    ENDONYM_JUDGE_URL, ENDONYM_JUDGE_KEY   else OPENAI_BASE_URL, OPENAI_API_KEY; url ends before /chat
    ENDONYM_JUDGE_SECONDS                  of one request (60)
    ENDONYM_JUDGE_PARALLEL                 requests at a time (16)

Transport errors, 408, 429 and 5xx are tried again after 0.5, 1 and 2 seconds. What is still no answer
then is Unreached: an outcome of its own, never a score.
"""

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from endonym.core.errors import MachineError

if TYPE_CHECKING:
    import httpx

WAITS = (0.5, 1.0, 2.0)
AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}
MISTAKES = {401, 403, 404}


class Unreached(Exception):
    """The server could not be reached, or what it sent is no answer."""


@dataclass(frozen=True)
class Answer:
    text: str
    finish: str
    """ "stop", or "length": cut off."""


class Server:
    """One model at one server. Any number of threads may ask; close() when done."""

    def __init__(
        self, url: str, model: str, key: str = "", *, seconds: float = 60.0, parallel: int = 16
    ):
        import httpx

        self.url, self.model, self.parallel = url.rstrip("/"), model, parallel
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=parallel)
        self.client = httpx.Client(timeout=seconds, headers=headers, limits=limits)

    @classmethod
    def from_environment(cls, model: str, prefix: str) -> "Server":
        """The server that the environment names under a prefix; MachineError where it names none."""
        url = _setting(f"{prefix}_URL", "OPENAI_BASE_URL")
        if not url:
            raise MachineError(
                f"the server of the model {model!r} is not named",
                where="the environment",
                wanted=f"{prefix}_URL (or OPENAI_BASE_URL), e.g. https://host/v1",
                do="name it, or leave the model out of the recipe",
            )
        return cls(
            url,
            model,
            _setting(f"{prefix}_KEY", "OPENAI_API_KEY"),
            seconds=float(_setting(f"{prefix}_SECONDS") or 60),
            parallel=int(_setting(f"{prefix}_PARALLEL") or 16),
        )

    def ask(self, messages: list[dict[str, str]], **settings: Any) -> Answer:
        """One answer; settings go into the request's body. Unreached where there is none; MachineError
        where the server refuses the key or knows no such model, as it would every time."""
        import httpx

        body = {"model": self.model, "messages": messages, **settings}
        for wait in (*WAITS, None):
            try:
                answer = self.client.post(f"{self.url}/chat/completions", json=body)
            except httpx.TransportError as error:
                reason = f"{type(error).__name__}: {error}"
            else:
                if answer.status_code not in AGAIN:
                    return self._read(answer)
                reason = f"HTTP {answer.status_code}"
            if wait is not None:
                time.sleep(wait)
        raise Unreached(f"{self.url}: {reason}")

    def _read(self, answer: "httpx.Response") -> Answer:
        if answer.status_code in MISTAKES:
            raise MachineError(
                f"the server refuses to be asked for {self.model!r}",
                where=self.url,
                got=f"HTTP {answer.status_code}: {answer.text[:200]}",
                do="check the address, the key and the model's name",
            )
        try:
            choice = answer.json()["choices"][0] if answer.is_success else {}
            text = choice["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str):
            raise Unreached(f"{self.url}: HTTP {answer.status_code}: {answer.text[:200]}")
        return Answer(text, "length" if choice.get("finish_reason") == "length" else "stop")

    def close(self) -> None:
        self.client.close()


def _setting(*names: str) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")
