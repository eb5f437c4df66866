"""The training rows of a conversation: each assistant turn once, written as it will be sampled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from endonym.core.errors import DataError


@dataclass(frozen=True)
class Row:
    """A rendered conversation: where assistants' words begin in it, and which of them are learnt:
    {where they begin: number of the message}."""

    text: str
    starts: list[int]
    learnt: dict[int, int]


def training_texts(
    rendered: Callable[[list[tuple[int, bool]]], list[str]],
    roles: Sequence[str],
    over: Callable[[str, int], int | None],
    is_lasting: bool = False,
) -> list[Row]:
    """The fewest renderings in which each assistant turn stands once as it will be sampled.

    rendered:   texts of the first n messages, with generation prompt or not, for a list of (n, bool)
    over:       (text, begin) -> where the turn that begins there is over, its stop token included;
                None where it never is, which is a DataError
    is_lasting: the template is known to leave these turns as they were (chat.drops_nothing), so
                that the last rendering shows them all: half the work

    Turn i is sampled after prompt(i), the rendering of the messages before it with a generation
    prompt, and reads as in whole(i), the rendering that ends with it; prompt(i) must be a prefix of
    whole(i). Many templates change a turn once others follow: thoughts are dropped (Qwen3, Solar
    Open, ours), a system text wanders to the last user turn (Mistral). So turns share a row as long
    as each prompt holds the turn before it unchanged; where one does not, a new row begins, in which
    only the turns from there on are learnt. Without such changes the row is the whole conversation,
    and no turn is ever learnt twice.
    """
    turns = [n for n, role in enumerate(roles) if role == "assistant"]
    if not turns:
        raise DataError(
            "a conversation has no token to learn from",
            wanted="at least one assistant turn",
            got=f"roles {list(roles)}",
        )
    ends = [len(roles)] if is_lasting else [*(n + 1 for n in turns), len(roles)]
    texts = rendered([(n, True) for n in turns] + [(n, False) for n in dict.fromkeys(ends)])
    prompts, whole = texts[: len(turns)], texts[-1]
    wholes = [whole] * len(turns) if is_lasting else texts[len(turns) : 2 * len(turns)]
    sampled = []  # prompt and turn, up to the stop token
    for turn, prompt, text in zip(turns, prompts, wholes):
        if not text.startswith(prompt):
            raise _not_a_prefix(prompt, text, turn, len(roles))
        end = over(text, len(prompt))
        if end is None:
            raise DataError(
                "the chat template does not end an assistant's turn",
                where=f"message {turn + 1} of {len(roles)}",
                wanted="a stop token after the turn, one token of the vocabulary",
                got=repr(text[-60:]),
                do="add the token that the template writes there, or use chat.with_chat(tokenizer)",
            )
        sampled.append(text[:end])
    out, first = [], 0
    nexts = [*prompts[1:], whole]  # of the last turn: what the whole conversation makes of it
    for n, following in enumerate(nexts):
        is_kept, is_last = following.startswith(sampled[n]), n + 1 == len(turns)
        if is_kept and not is_last:
            continue
        text = following if is_kept else wholes[n]
        here = slice(first, n + 1)
        learnt = {len(prompt): turn for prompt, turn in zip(prompts[here], turns[here])}
        before = starts(prompts[first], prompts[:first])
        out.append(Row(text, [*before, *learnt], learnt))
        first = n + 1
    return out


def starts(text: str, prompts: Sequence[str]) -> list[int]:
    """Where in a text the assistants' words begin, for those prompts that it begins with."""
    return [len(prompt) for prompt in prompts if text.startswith(prompt)]


def _not_a_prefix(prompt: str, whole: str, turn: int, count: int) -> DataError:
    same = next((i for i, (a, b) in enumerate(zip(prompt, whole)) if a != b), len(whole))
    return DataError(
        "the chat template writes an assistant's turn otherwise than its generation prompt",
        where=f"message {turn + 1} of {count}",
        wanted=f"...{prompt[max(0, same - 20) :]!r}",
        got=f"...{whole[max(0, same - 20) : same + 60]!r}",
        do="use a template whose generation prompt is a prefix of the full conversation",
    )
