"""Answers of a server that speaks OpenAI's completions protocol with token ids, as vLLM does.

    GET  {url}/models         the names of what is served, and its longest sequence (max_model_len)
    POST {url}/completions    one prompt as ids, a seed of its own, log-probabilities asked for

Field names are those of vLLM's CompletionRequest: besides OpenAI's, top_k, min_p, repetition_penalty,
stop_token_ids, ignore_eos, add_special_tokens, return_token_ids. All of them are sent, for what is left
out the server takes from the model's generation_config.json, which may say anything.

The server must be known by a name that stands for its weights and nothing else, best of all their
address (vllm serve --served-model-name): names are compared before a batch of prompts, in every answer
and after the batch. An answer under another name is refused, not learned from.

One kind of log-probability comes with an answer. At temperature 1 without truncation the two kinds are
one. Else it must be that of the distribution drawn from (vllm serve --logprobs-mode processed_logprobs,
which is not vLLM's default), and raw_logprobs are nan: nobody has told them. Which kind it is the server
is asked once, by a token that top_k = 1 makes certain: its log-probability is then 0, and else it is less.

vLLM filters by min_p before top_k and top_p, where ours comes last: the two together leave other tokens
there than here. The log-probabilities are right in both.
"""

import hashlib
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from endonym.core.errors import DataError, MachineError
from endonym.engine.generate import check_stops, content_keys
from endonym.engine.run import Generation
from endonym.engine.sampler import Sampling
from endonym.engine.text import Decode, Text

if TYPE_CHECKING:
    import httpx

WAITS = (0.5, 1.0, 2.0)
"""Seconds before the second, third and fourth try."""

AGAIN = {408, 425, 429, 500, 502, 503, 504}
"""What says that the server could not, rather than that it would not. A request may be sent twice: its
answer depends on its seed."""

CERTAIN = 1e-3
"""A log-probability nearer to 0 than this is that of a certain token: bfloat16's error is below it."""


class Served:
    """The backend of one server.

    url:     ends before /completions, e.g. http://127.0.0.1:8000/v1
    name:    under which the server knows the weights
    weights: their address or stamp; left out, the name
    context: left out, what the server says, if it does
    by:      "server", and whose, if it says so (owned_by; vLLM's is "vllm")
    seconds: of one request, the whole answer; parallel: requests at a time
    """

    def __init__(
        self,
        url: str,
        name: str,
        weights: str | None = None,
        *,
        key: str = "",
        context: int | None = None,
        seconds: float = 600.0,
        parallel: int = 64,
    ):
        import httpx

        self.url, self.name, self.weights = url.rstrip("/"), name, weights or name
        self.parallel = parallel
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=parallel)
        away = not self.url.startswith("http://127.0.0.1")  # else no proxy, no certificates
        self.client = httpx.Client(
            timeout=seconds, headers=headers, limits=limits, trust_env=away, verify=away
        )
        card = self._check_name()
        self.context = context or card.get("max_model_len")
        self.by = f"server ({card['owned_by']})" if card.get("owned_by") else "server"
        self._tells_drawn: bool | None = None

    def generate(
        self,
        prompts: Sequence[list[int]],
        sampling: Sampling,
        stop_ids: Sequence[int] = (),
        *,
        keys: Sequence[int] | None = None,
        limits: Sequence[int] | None = None,
        stops: Sequence[str] = (),
        decode: Decode | None = None,
    ) -> list[Generation]:
        """As Backend.generate. DataError where an answer is not what was asked for, MachineError where
        the server cannot be reached or refuses."""
        if not prompts:
            return []
        check_stops(stops, decode)
        self._check_name()
        if not _is_plain(sampling):
            self._check_logprobs(prompts[0])
        keys = content_keys(prompts) if keys is None else keys
        limits = limits or [sampling.max_tokens] * len(prompts)
        bodies = [
            self._body(prompt, sampling, stop_ids, stops, key, limit)
            for prompt, key, limit in zip(prompts, keys, limits, strict=True)
        ]
        with ThreadPoolExecutor(min(self.parallel, len(bodies))) as pool:
            asked = [pool.submit(self._completion, body) for body in bodies]
            try:
                choices = [each.result() for each in asked]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        self._check_name()
        return [_generation(choice, sampling, stop_ids, stops, decode) for choice in choices]

    def close(self) -> None:
        self.client.close()

    def _body(self, prompt, sampling, stop_ids, stops, key, limit) -> dict[str, Any]:
        if not prompt:
            raise DataError("a prompt is empty", wanted="at least one token")
        if self.context:
            if len(prompt) >= self.context:
                raise DataError(
                    "a prompt fills the model's context",
                    wanted=f"fewer than {self.context} tokens",
                    got=len(prompt),
                    do="shorten the prompt",
                )
            limit = min(limit, self.context - len(prompt))
        return {
            "model": self.name,
            "prompt": list(prompt),
            "add_special_tokens": False,
            "max_tokens": limit,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k or -1,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "repetition_penalty": 1.0,
            "seed": _seed(sampling.seed, key),
            "stop_token_ids": sorted(stop_ids),
            "stop": list(stops),
            "ignore_eos": True,  # stop_ids say what ends an answer, and nothing else
            "logprobs": 1,
            "return_token_ids": True,
        }

    def _check_name(self) -> dict[str, Any]:
        """What the server says of the weights; DataError where it does not know them."""
        found = self._ask("GET", "/models").get("data")
        try:
            cards = {each["id"]: each for each in found}
        except (TypeError, KeyError):
            raise self._malformed("/models", "a list of models", found) from None
        if self.name not in cards:
            raise DataError(
                "the server has other weights than those asked for",
                where=self.url,
                wanted=self.name,
                got=", ".join(map(str, cards)) or "none",
                do="serve them under this name (vllm serve FOLDER --served-model-name NAME)",
            )
        return cards[self.name]

    def _check_logprobs(self, prompt: list[int]) -> None:
        """Asks once which of the two kinds the server tells."""
        if self._tells_drawn is None:
            probe = Sampling(temperature=2.0, top_k=1, max_tokens=1)
            choice = self._completion(self._body(prompt[:1], probe, (), (), 0, 1))
            self._tells_drawn = abs(choice["logprobs"]["token_logprobs"][0]) < CERTAIN
        if not self._tells_drawn:
            raise DataError(
                "the server tells log-probabilities at temperature 1, not those of what it drew from",
                where=self.url,
                do="start vLLM with --logprobs-mode processed_logprobs, or draw at temperature 1 "
                "without top_k, top_p and min_p",
            )

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        """The only choice of an answer, after all was looked at that must be there."""
        answer = self._ask("POST", "/completions", body)
        if answer.get("model") != self.name:
            raise DataError(
                "an answer is of other weights than those asked for",
                where=self.url,
                wanted=self.name,
                got=answer.get("model"),
                do="let no one change what the server serves while it is asked",
            )
        try:
            (choice,) = answer["choices"]
            tokens, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
            asked, finish = choice["prompt_token_ids"], choice["finish_reason"]
        except (TypeError, KeyError, ValueError):
            raise self._malformed(
                "/completions",
                "one choice with token_ids, prompt_token_ids, finish_reason and logprobs",
                answer,
            ) from None
        numbers = isinstance(logprobs, list) and all(_is_number(each) for each in logprobs)
        if not isinstance(tokens, list) or not numbers or len(logprobs) != len(tokens):
            raise self._malformed("/completions", "a log-probability for each token", choice)
        if asked != body["prompt"]:
            raise self._malformed("/completions", "an answer to the ids that were sent", asked)
        if finish not in ("stop", "length") or not 0 < len(tokens) <= body["max_tokens"]:
            told = f"{len(tokens)} tokens, finish_reason {finish!r}"
            wanted = f'1 to {body["max_tokens"]} tokens, finish_reason "stop" or "length"'
            raise self._malformed("/completions", wanted, told)
        return choice

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        import httpx

        for wait in (*WAITS, None):
            try:
                answer = self.client.request(method, self.url + path, json=body)
            except httpx.TransportError as error:
                reason = f"{type(error).__name__}: {error}"
            else:
                if answer.status_code not in AGAIN:
                    return self._read(answer, path)
                reason = f"HTTP {answer.status_code}: {answer.text[:200]}"
            if wait is not None:
                time.sleep(wait)
        raise MachineError(
            "the server does not answer",
            where=self.url + path,
            got=reason,
            do="look into its log, and whether it still runs",
        )

    def _read(self, answer: "httpx.Response", path: str) -> dict[str, Any]:
        if not answer.is_success:
            raise MachineError(
                "the server refuses a request",
                where=self.url + path,
                got=f"HTTP {answer.status_code}: {answer.text[:300]}",
                do="check the address, the key, the name and the length of the prompts",
            )
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._malformed(path, "a JSON object", answer.text)
        return found

    def _malformed(self, path: str, wanted: str, got: object) -> DataError:
        return DataError(
            "what the server sent is not what was asked for",
            where=self.url + path,
            wanted=wanted,
            got=str(got)[:300],
            do="use a server with vLLM's fields, of a version that knows return_token_ids",
        )


def _generation(
    choice: dict[str, Any],
    sampling: Sampling,
    stop_ids: Sequence[int],
    stops: Sequence[str],
    decode: Decode | None,
) -> Generation:
    tokens, told = choice["token_ids"], [float(x) for x in choice["logprobs"]["token_logprobs"]]
    made = Generation(tokens, told, told, choice["finish_reason"])
    if sampling.temperature == 0:
        made.logprobs = [0.0] * len(tokens)
    elif not _is_plain(sampling):
        made.raw_logprobs = [math.nan] * len(tokens)
    if decode is not None:
        text = Text(decode, stops)
        for token in tokens:
            if not text.ended and token not in stop_ids:
                text.push(token)
        text.finish()
        made.text = text.text
    return made


def _is_plain(sampling: Sampling) -> bool:
    """Whether both kinds of log-probability are the server's one: greedy decoding draws from nothing."""
    filtered = sampling.top_k or sampling.top_p < 1 or sampling.min_p
    return sampling.temperature == 0 or (sampling.temperature == 1 and not filtered)


def _is_number(x: object) -> bool:
    return isinstance(x, (int, float)) and math.isfinite(x)


def _seed(seed: int, key: int) -> int:
    """63 bits out of the run's seed and an item's key."""
    digest = hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
