"""Stores without text: of any lengths, scores, languages and sources, written as the real ones are."""

from endonym.data.document import Conversation, Document
from endonym.data.store import TokenStore


class Letters:
    """A tokenizer of one token a character. A conversation's row is "qqq" and "aaa", the latter learnt."""

    identity, bos_id, eos_id = "letters", None, 0

    def encode_batch(self, texts, literal):
        assert literal
        return [[ord(c) for c in text] for text in texts]

    def weighted_rows(self, messages, tools=None, **variables):
        ids, weights = [1] * len(tools or []), [0.0] * len(tools or [])
        for message in messages:
            new = [ord(c) for c in message["content"]] + [2]
            weight = message.get("weight", 1.0) if message["role"] == "assistant" else 0.0
            ids, weights = ids + new, weights + [weight] * len(new)
        return [(ids, weights)]


def documents(folder, lengths, key="k", languages=None, scores=None, sources=None):
    """Documents of so many predictions (characters) each."""
    rows = (
        Document(
            str(n),
            "x" * int(length),
            language=languages[n] if languages is not None else "",
            source=sources[n] if sources is not None else "",
            scores={name: float(each[n]) for name, each in (scores or {}).items()},
        )
        for n, length in enumerate(lengths)
    )
    return TokenStore.build(folder, rows, Letters(), key=key)


def conversations(folder, pairs, key="k", **settings):
    """Conversations of (asked, answered) characters."""
    rows = [
        Conversation(
            str(n),
            [
                {"role": "user", "content": "q" * asked},
                {"role": "assistant", "content": "a" * answered},
            ],
        )
        for n, (asked, answered) in enumerate(pairs)
    ]
    return TokenStore.build(folder, rows, Letters(), key=key, **settings)
