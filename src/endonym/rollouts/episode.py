"""An episode: what a model drew after a prompt, what it was told in between, and which is which."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from endonym.data.document import Messages, Prompt
from endonym.tokenizer.folder import Tokenizer

if TYPE_CHECKING:
    from endonym.engine.backends import Backend
    from endonym.engine.sampler import Sampling


@dataclass
class Episode:
    """One trajectory, as token ids and as messages.

    prompt:       ids that the model was given, generation prompt included
    tokens:       all ids after the prompt: what it drew, exactly as drawn and never encoded again, and
                  between its turns what it was told (tool text), as the chat template writes it
    mask:         of each token: the model drew it (stop tokens included)
    logprobs:     of each token in the distribution it was drawn from; 0.0 where it was not drawn
    raw_logprobs: of each token at temperature 1 without truncation; 0.0 where it was not drawn
    finish:       "stop"       the last turn ended by itself
                  "length"     it was cut off, or there was no room for what it would have been told
                  "turns"      it still called tools when it had been answered as often as is allowed
                  "cancelled"
    messages:     the completion, assistant's and tools' turns, as rewards are given it (TRL)
    turns:        assistant's turns
    state:        of the environment when the episode was over
    reward:       the environment's own, None where it has none
    """

    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    raw_logprobs: list[float] = field(default_factory=list)
    finish: str = "stop"
    messages: Messages = field(default_factory=list)
    turns: int = 0
    state: Any = None
    reward: float | None = None

    def drew(self, tokens: list[int], logprobs: list[float], raw_logprobs: list[float]) -> None:
        """One more turn of the assistant's."""
        self.tokens += tokens
        self.mask += [True] * len(tokens)
        self.logprobs += logprobs
        self.raw_logprobs += raw_logprobs
        self.turns += 1

    def told(self, tokens: list[int]) -> None:
        """What the model was told: to be read, not learnt."""
        self.tokens += tokens
        self.mask += [False] * len(tokens)
        self.logprobs += [0.0] * len(tokens)
        self.raw_logprobs += [0.0] * len(tokens)


def single_turn(
    backend: "Backend",
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    sampling: "Sampling",
    *,
    keys: list[int] | None = None,
    limit: int | None = None,
) -> list[Episode]:
    """One answer to each prompt, in their order.

    keys:  what an answer's random numbers depend on besides the seed (engine.generate)
    limit: the most tokens of an answer, where it is not sampling.max_tokens

    The completion is one assistant's message with the text as it was written, thoughts included, as
    TRL gives it: a reward for format must see them.
    """
    ids = [tokenizer.encode_prompt(each.messages, each.tools or None) for each in prompts]
    limits = None if limit is None else [limit] * len(ids)
    drawn = backend.generate(ids, sampling, tokenizer.stop_ids, keys=keys, limits=limits)
    made = []
    for prompt, answer in zip(ids, drawn, strict=True):
        said = {"role": "assistant", "content": tokenizer.decode(answer.tokens)}
        episode = Episode(prompt, finish=answer.finish, messages=[said])
        episode.drew(answer.tokens, answer.logprobs, answer.raw_logprobs)
        made.append(episode)
    return made
