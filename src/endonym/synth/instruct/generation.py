"""Step 7: replies to a query under a constraint, k of a model; those that were cut off are dropped.

The constraint stands in the user's turn, or in the system prompt, where the sample will have it: the
placement (emission.py) is drawn first, so that a reply answers the very words that it is stored with.
"""

from collections import Counter
from collections.abc import Sequence

from endonym.synth.instruct.chat import Request
from endonym.synth.instruct.emission import Told
from endonym.synth.instruct.journal import Journal


def generated(
    chat: Journal,
    told: Sequence[Told],
    responses: int,
    temperature: float,
    max_tokens: int,
    seed: int,
    counts: Counter[str],
) -> list[list[str]]:
    """The different replies to each told pair. Counted: call failed, cut off, empty, repeated, kept."""
    requests = [
        Request(one.messages, temperature, max_tokens, seed + number)
        for one in told
        for number in range(responses)
    ]
    answers = chat.ask(requests)
    found = []
    for place in range(len(told)):
        replies: list[str] = []
        for answer in answers[place * responses : (place + 1) * responses]:
            if answer is None:
                counts["call failed"] += 1
            elif answer.finish != "stop":
                counts["cut off"] += 1
            elif not (text := answer.text.strip()):
                counts["empty"] += 1
            elif text in replies:
                counts["repeated"] += 1
            else:
                counts["kept"] += 1
                replies.append(text)
        found.append(replies)
    return found
