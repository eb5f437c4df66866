"""Step 8: a model says from 0 to 10 how good a reply is; what is not above the threshold is dropped.

The release keeps scores above 8.0 (its code; its README says 7 or more). A verdict that cannot be read
is none: the sample is dropped and counted so.
"""

import re
from collections import Counter
from collections.abc import Sequence

from endonym.lang.pack import pack
from endonym.synth.instruct.chat import ask
from endonym.synth.instruct.journal import Journal
from endonym.synth.instruct.prompts import prompt

SCORE = re.compile(r"score\W{0,6}(10(?:\.0+)?|\d(?:\.\d+)?)(?:\s*/\s*10)?\W*$", re.IGNORECASE)


def scored(
    judge: Journal, samples: Sequence[tuple[str, str, str, str]], counts: Counter[str]
) -> list[float | None]:
    """The score of each (query, constraint, reply, language); None where there is none. Counted: scored,
    call failed, unreadable."""
    requests = [
        ask(
            prompt(
                "judge",
                language=pack(language).name,
                query=query,
                constraint=constraint,
                reply=reply,
            ),
            max_tokens=512,
        )
        for query, constraint, reply, language in samples
    ]
    found = []
    for answer in judge.ask(requests):
        score = read(answer.text) if answer is not None else None
        found.append(score)
        reason = "call failed" if answer is None else "unreadable" if score is None else "scored"
        counts[reason] += 1
    return found


def read(text: str) -> float | None:
    """The number on the last line that says one, "Score: 8"."""
    for line in reversed(text.strip().splitlines()):
        if line.strip():
            found = SCORE.search(line.replace("*", "").strip())
            return float(found[1]) if found else None
    return None
