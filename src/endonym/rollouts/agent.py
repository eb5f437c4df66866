"""Episodes with tools: a model acts in an environment, turn by turn, many episodes at a time.

    prompt -> turn drawn -> calls -> environment -> answers told -> turn drawn -> ... -> last word

All living episodes draw their next turn in one batch. The ids that the model drew stay as drawn; what
it was told follows them as the chat template writes it (Tokenizer.encode_answers), and only what was drawn is
marked as such. A call that cannot be made is answered with an error, {"error": ...}, and the episode
goes on: a model learns more from being told than from being cut off.

The limits are those of verl's tool agent loop, which InK-GRPO's release runs: a model is answered at
most `max_turns` times (its max_user_turns) and may then speak once more; the response, what it was told
included, has at most `max_tokens`; where an answer would leave no room for a token, the episode ends
before it. Ours: a turn that ends with the document's end instead of the turn's is the last one.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from endonym.core.errors import DataError
from endonym.data.document import Messages, Prompt
from endonym.rollouts.environment import Environment, misfit, tool_message
from endonym.rollouts.episode import Episode
from endonym.tokenizer.calls import check_calls, parse_reply
from endonym.tokenizer.folder import Tokenizer

if TYPE_CHECKING:
    from endonym.engine.backends import Backend
    from endonym.engine.sampler import Sampling


def episodes(
    backend: "Backend",
    tokenizer: Tokenizer,
    environment: Environment,
    prompts: Sequence[Prompt],
    sampling: "Sampling",
    *,
    max_turns: int = 5,
    max_tokens: int = 8192,
    keys: list[int] | None = None,
) -> list[Episode]:
    """One episode for each prompt, in their order; sampling.max_tokens is the most of one turn.

    keys: what an episode's random numbers (the model's and the environment's) depend on besides the
    seed; left out, the prompt and how manieth it is among equal ones. So an episode is the same
    whatever others do beside it, and one of a single turn is what single_turn gives.

    DataError where the template knows no tools, or where a prompt leaves no room for a token.
    """
    from endonym.engine.generate import content_keys

    tools = environment.tools or None
    if tools:
        check_calls(tokenizer, tools)
    if keys is None:
        keys = content_keys([tokenizer.encode_prompt(each.messages, tools) for each in prompts])
    runs = []
    for prompt, key in zip(prompts, keys, strict=True):
        state, messages = environment.reset(prompt, key)
        ids = tokenizer.encode_prompt(messages, tools)
        runs.append(_Run(Episode(ids, state=state), key, list(messages)))
    alive = runs
    while alive:
        rooms = [_room(backend, run.episode, max_tokens) for run in alive]
        drawn = backend.generate(
            [run.episode.prompt + run.episode.tokens for run in alive],
            sampling,
            tokenizer.stop_ids,
            keys=[turn_key(run.key, run.episode.turns) for run in alive],
            limits=[min(room, sampling.max_tokens) for room in rooms],
        )
        for run, turn in zip(alive, drawn, strict=True):
            run.episode.drew(turn.tokens, turn.logprobs, turn.raw_logprobs)
            message = parse_reply(tokenizer.decode(turn.tokens), first=run.num_calls + 1)
            run.say(message)
            run.episode.finish = turn.finish
            run.is_over = turn.finish != "stop" or turn.tokens[-1] != tokenizer.turn_end_id
            if not run.is_over:
                _answer(run, environment, message, max_turns)
            if not run.is_over:
                ids = tokenizer.encode_answers(run.shown, run.num_said, tools)
                if len(ids) < _room(backend, run.episode, max_tokens):
                    run.hear(ids)
                else:
                    run.episode.finish, run.is_over = "length", True
        alive = [run for run in alive if not run.is_over]
    for run in runs:
        run.episode.reward = environment.reward(run.episode.state, run.episode.messages)
    return [run.episode for run in runs]


def turn_key(key: int, turn: int) -> int:
    """63 bits for the random numbers of an episode's turn; those of the first are the episode's own."""
    if not turn:
        return key
    told = key.to_bytes(8, "little", signed=True) + turn.to_bytes(8, "little")
    digest = hashlib.blake2b(told, digest_size=8, person=b"turn").digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass
class _Run:
    """An episode under way.

    shown:    the conversation as far as the template must know it to write the next answers: calls
              with their names only, so that ten megabytes of arguments are not rendered again
    num_said: how many of these stand up to the assistant's last turn
    """

    episode: Episode
    key: int
    shown: Messages
    num_said: int = 0
    num_calls: int = 0
    waiting: Messages = field(default_factory=list)
    is_over: bool = False

    def say(self, message: dict[str, Any]) -> None:
        calls = message.get("tool_calls", [])
        turn: dict[str, Any] = {"role": "assistant", "content": ""}
        if calls:
            turn["tool_calls"] = [
                call | {"function": call["function"] | {"arguments": {}}} for call in calls
            ]
        self.episode.messages.append(message)
        self.shown.append(turn)
        self.num_said = len(self.shown)
        self.num_calls += len(calls)

    def wait_for(self, messages: Messages) -> None:
        self.waiting = messages
        self.shown += messages

    def hear(self, ids: list[int]) -> None:
        self.episode.told(ids)
        self.episode.messages += self.waiting


def _answer(run: _Run, environment: Environment, message: dict[str, Any], max_turns: int) -> None:
    """What the environment says to a message; the run is over where it says nothing or is done."""
    calls, malformed = message.get("tool_calls", []), message.get("malformed", [])
    if (calls or malformed) and run.episode.turns > max_turns:
        run.episode.finish, run.is_over = "turns", True
        return
    wrong = {call["id"]: found for call in calls if (found := misfit(environment.tools, call))}
    right = [call for call in calls if call["id"] not in wrong]
    told: Messages = []
    if right or not (calls or malformed):
        asked = message | {"tool_calls": right} if calls else message
        told, run.is_over = environment.step(run.episode.state, asked)
    by_call = {each.get("tool_call_id"): each for each in told if each["role"] == "tool"}
    if by_call.keys() != {call["id"] for call in right}:
        raise DataError(
            "an environment does not answer each call once",
            where=type(environment).__name__,
            wanted=", ".join(call["id"] for call in right) or "no tool messages",
            got=", ".join(map(str, by_call)) or "none",
        )
    answers = [
        tool_message(call, wrong[call["id"]]) if call["id"] in wrong else by_call[call["id"]]
        for call in calls
    ]
    for each in malformed:  # in the order in which the calls were made
        answers.insert(each["place"], {"role": "tool", "content": _malformed(each)})
    others = [each for each in told if each["role"] != "tool"]
    run.is_over = run.is_over or not (answers or others)
    if not run.is_over and run.episode.turns > max_turns:  # a user who would go on asking
        run.episode.finish, run.is_over = "turns", True
    run.wait_for(answers + others)


def _malformed(found: dict[str, Any]) -> str:
    told = {"error": "malformed call", "call": found["place"] + 1, "why": found["error"]}
    return json.dumps(told, ensure_ascii=False)


def _room(backend: "Backend", episode: Episode, max_tokens: int) -> int:
    """How many more tokens the response may have."""
    left = max_tokens - len(episode.tokens)
    if backend.context is not None:
        left = min(left, backend.context - len(episode.prompt) - len(episode.tokens))
    return left
