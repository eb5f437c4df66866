"""Answers of a model that may look things up, each with its verdict and what it did to get there.

    items x samples -> rollouts/agent.episodes -> replies -> tasks: verdict, language

A journal makes a long evaluation resumable, as in eval/run.py. Judged is what was said last, after the
thoughts; one who was cut off, or still called tools when its turns were over, mostly said nothing there.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb
from typing import Any

from endonym.core.context import Context
from endonym.core.errors import DataError
from endonym.data.document import Prompt
from endonym.engine.backends import Backend
from endonym.engine.generate import content_keys
from endonym.engine.sampler import Sampling
from endonym.eval.journal import Journal
from endonym.eval.run import TOO_LONG, Reply, fits, judge
from endonym.rollouts.agent import episodes
from endonym.rollouts.environment import Environment
from endonym.rollouts.episode import Episode
from endonym.tasks.base import Item
from endonym.tokenizer.folder import Tokenizer

BATCH = 128
"""Episodes between two writes of the journal."""


@dataclass(frozen=True)
class AgenticReply(Reply):
    """A Reply (eval/run.py) with its episode.

    tokens, ids: drawn by the model in all its turns, without what it was told
    finish:      of the episode (rollouts/episode.py), or "too long"
    sample:      number of the answer among those to the same item, from 0
    turns:       the assistant's
    calls:       tool calls that could be read; malformed: those that could not
    told:        tokens of what the tools answered
    facts:       what the environment says of its state
    """

    sample: int = 0
    turns: int = 0
    calls: int = 0
    malformed: int = 0
    told: int = 0
    facts: dict[str, Any] | None = None


def agentic_answers(
    backend: Backend,
    tokenizer: Tokenizer,
    items: Sequence[Item],
    library: Environment,
    sampling: Sampling,
    context: Context,
    *,
    samples: int = 1,
    max_turns: int = 5,
    max_tokens: int = 8192,
    name: str = "agentic",
    title: str = "agentic",
) -> list[AgenticReply]:
    """`samples` replies to each item, in the items' order; those that the journal holds are not asked
    again. sampling.max_tokens is the most of one turn, max_tokens of a whole response with what the
    tools said; max_turns is how often the model is answered.

    DataError where two items share an id, or where the chat template knows no tools.
    """
    if len({item.id for item in items}) != len(items):
        raise DataError("two items share an id", wanted="one id for each item")
    shown = [library.reset(_prompt(item), 0)[1] for item in items]
    prompts = [tokenizer.encode_prompt(messages, library.tools or None) for messages in shown]
    asked = [(number, sample) for number in range(len(items)) for sample in range(samples)]
    keys = content_keys([prompts[number] for number, _ in asked])
    limits = [samples, max_turns, max_tokens]
    journal = Journal(
        context.scratch / f"{name}.jsonl",
        _identity(items, prompts, sampling, library.tools, limits),
        AgenticReply,
    )
    replies = {(reply.item, reply.sample): reply for reply in journal.rows}
    order = sorted(range(len(asked)), key=lambda place: (-len(prompts[asked[place][0]]), place))
    with journal, context.console.bar(title, len(asked), unit="item") as bar:
        bar.advance(len(replies))
        for at in range(0, len(order), BATCH):
            batch = [(*asked[place], keys[place]) for place in order[at : at + BATCH]]
            if all((items[number].id, sample) in replies for number, sample, _ in batch):
                continue
            able = [each for each in batch if fits(backend, prompts[each[0]])]
            done = episodes(
                backend,
                tokenizer,
                library,
                [_prompt(items[number]) for number, _, _ in able],
                sampling,
                max_turns=max_turns,
                max_tokens=max_tokens,
                keys=[key for _, _, key in able],
            )
            by_place = {(number, sample): each for (number, sample, _), each in zip(able, done)}
            new = [
                _judged(items[number], sample, by_place.get((number, sample)), library)
                for number, sample, _ in batch
            ]
            journal.append(new)
            replies.update({(reply.item, reply.sample): reply for reply in new})
            score = sum(reply.score for reply in replies.values()) / len(replies)
            bar.advance(len(batch), score=score)
    return [replies[items[number].id, sample] for number, sample in asked]


def pass_at(k: int, solved: int, drawn: int) -> float:
    """The chance that of k answers out of `drawn`, of which `solved` are right, one is right:

    pass@k = 1 - C(n - c, k) / C(n, k)                       Chen et al. 2021, arXiv:2107.03374
    """
    if not 0 < k <= drawn:
        raise DataError("pass@k needs k answers to an item", wanted=f"at least {k}", got=drawn)
    return 1 - comb(drawn - solved, k) / comb(drawn, k)


def solved(replies: Sequence[AgenticReply]) -> dict[str, tuple[int, int]]:
    """(right answers, answers) by item, in order; right is a score of 1."""
    counts: dict[str, tuple[int, int]] = {}
    for reply in replies:
        right, drawn = counts.get(reply.item, (0, 0))
        counts[reply.item] = (right + (reply.score == 1.0), drawn + 1)
    return counts


def figures(replies: Sequence[AgenticReply], k: int | None = None) -> dict[str, float]:
    """Means over the items (pass_1, pass_k) and over the replies.

    score           of the verdicts
    pass_1, pass_k  k: all samples of an item, if not said
    turns, calls    of an episode
    called          share of the episodes that made a call that could be read
    malformed       share of the calls that could not be read
    cut_off         share of the episodes that did not end by themselves
    """
    if not replies:
        raise DataError("no replies to measure", wanted="at least one")
    counts = list(solved(replies).values())
    k = k or min(drawn for _, drawn in counts)
    number = len(replies)
    calls = sum(reply.calls for reply in replies)
    malformed = sum(reply.malformed for reply in replies)
    return {
        "score": sum(reply.score for reply in replies) / number,
        "pass_1": sum(pass_at(1, *each) for each in counts) / len(counts),
        f"pass_{k}": sum(pass_at(k, *each) for each in counts) / len(counts),
        "turns": sum(reply.turns for reply in replies) / number,
        "calls": calls / number,
        "called": sum(reply.calls > 0 for reply in replies) / number,
        "malformed": malformed / max(1, calls + malformed),
        "cut_off": sum(reply.finish != "stop" for reply in replies) / number,
    }


def _prompt(item: Item) -> Prompt:
    return Prompt(item.id, item.messages, item.language, item.source, item.licence, item.task)


def _judged(
    item: Item, sample: int, episode: Episode | None, environment: Environment
) -> AgenticReply:
    """The verdict on an episode; None: the prompt did not leave room for a token."""
    if episode is None:
        return AgenticReply(**vars(judge(item, None, 0, TOO_LONG)), sample=sample)
    said = [each for each in episode.messages if each["role"] == "assistant"]
    drawn = [token for token, is_drawn in zip(episode.tokens, episode.mask) if is_drawn]
    verdict = judge(item, said[-1]["content"].strip(), len(drawn), episode.finish)
    return AgenticReply(
        **vars(verdict) | {"ids": drawn},
        sample=sample,
        turns=episode.turns,
        calls=sum(len(each.get("tool_calls", [])) for each in said),
        malformed=sum(len(each.get("malformed", [])) for each in said),
        told=len(episode.tokens) - len(drawn),
        facts=environment.check(episode.state),
    )


def _identity(
    items: Sequence[Item],
    prompts: list[list[int]],
    sampling: Sampling,
    tools: list[dict[str, Any]],
    limits: list[int],
) -> str:
    """What a journal must be about to be gone on with. Model and library are not in it: they belong to
    the scratch folder, as a training run's model does."""
    asked = [asdict(item) for item in items]
    told = [asked, prompts, sampling.model_dump(mode="json"), tools, limits, BATCH]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
