"""Steps 4 and 5: what each function says in words, and whether that contradicts the instruction.

A function that agrees with its own test cases may still check something else than the instruction says.
So a model that sees the function alone writes the instruction again; where any of these contradicts the
original, the constraint is dropped. Those that stay are further ways to say it.

Whether two instructions contradict each other is asked of the model as well, greedily; the release asks
mDeBERTa-xnli. An answer that is none of the three words counts as a failed call: the constraint goes.
"""

from collections import Counter
from collections.abc import Sequence

from endonym.lang.pack import pack
from endonym.synth.instruct.chat import ask
from endonym.synth.instruct.cross_validation import Verified
from endonym.synth.instruct.journal import Journal
from endonym.synth.instruct.pool import FUNCTION, LONGEST, SHORTEST, Constraint
from endonym.synth.instruct.prompts import prompt

RELATIONS = ("entailment", "neutral", "contradiction")


def back_translated(
    chat: Journal,
    language: str,
    verified: Sequence[Verified],
    temperature: float,
    seed: int,
    counts: Counter[str],
) -> list[Constraint]:
    """The constraints that no back-translation contradicts, "made/0" ..., each with all its functions."""
    name = pack(language).name
    pairs = [(place, source) for place, one in enumerate(verified) for source in one.functions]
    answers = chat.ask(
        [
            ask(
                prompt("back_translation", language=name, function=source),
                temperature=temperature,
                max_tokens=512,
                seed=seed,
            )
            for _, source in pairs
        ]
    )
    said: list[list[str | None]] = [[] for _ in verified]
    for (place, _), answer in zip(pairs, answers):
        text = " ".join(answer.text.split()).strip() if answer else None
        fits = text is not None and SHORTEST <= len(text) <= LONGEST
        counts["back-translations" if fits else "back-translation failed"] += 1
        said[place].append(text if fits else None)

    asked = [
        (place, text) for place, texts in enumerate(said) if None not in texts for text in texts
    ]
    relations = _relations(chat, [(verified[place].text, text) for place, text in asked])
    by_place: dict[int, list[str | None]] = {}
    for (place, _), relation in zip(asked, relations):
        counts[relation or "relation unreadable"] += 1
        by_place.setdefault(place, []).append(relation)

    found = []
    for place, one in enumerate(verified):
        read = by_place.get(place)
        if read is None:
            counts["dropped: back-translation failed"] += 1
        elif None in read:
            counts["dropped: relation unreadable"] += 1
        elif "contradiction" in read:
            counts["dropped: contradiction"] += 1
        else:
            counts["kept"] += 1
            texts = list(dict.fromkeys([one.text, *said[place]]))
            check = {"type": FUNCTION, "functions": one.functions}
            found.append(Constraint(f"made/{len(found)}", language, texts, check))
    return found


def _relations(chat: Journal, pairs: Sequence[tuple[str, str]]) -> list[str | None]:
    """entailment, neutral or contradiction of each pair; None where no one of the words came."""
    requests = [
        ask(prompt("contradiction", original=a, translation=b), max_tokens=16) for a, b in pairs
    ]
    found = []
    for answer in chat.ask(requests):
        words = [each for each in RELATIONS if answer and each in answer.text.casefold()]
        found.append(words[0] if len(words) == 1 else None)
    return found
