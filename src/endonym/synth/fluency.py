"""Pairs of a natural sentence and the same one damaged: what a judge of fluency learns to tell apart.

    "ส่วนวันอาทิตย์และวันหยุดราชการปิดทำการ"  ->  "ส่วนวันอาทิตย์วันหยุดและราชการปิดทำการ"      order

JAI-1 keeps a machine translation where a model, trained on pairs that people ranked, finds it fluent
(shared METHODS 11.5). Where nobody has ranked any, these pairs stand in: the damage is what shows
that a text was translated into the language by a machine.

    order      words in the order of another language: neighbours exchanged, the last word early
    function   a function word dropped or doubled; in Korean the ending that does its work
    foreign    a word left in another script
    register   a particle or polite ending in place of another, or where none belongs
    repeated   a word, or several, said twice
    spacing    spaces within a clause or a word, or none where they belong

A pair has one kind, named in its `task`; a longer sentence has more places of it (one, and one more
for every twelve words). Words are the pack's (lang/segment.py), function words, particles and polite
endings too; a kind for which the pack has nothing is left out. Some damage leaves a sentence that
says something else and says it well (a dropped "not"), so no judge gets all pairs right. A rank learnt
from these is a rank among these: what it is worth among real translations must be measured on such.

The damage is a function of (language, seed, sentence), whatever stands before it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from random import Random

from endonym.core.config import nearest
from endonym.core.errors import DataError
from endonym.data.document import Document, Preference
from endonym.lang.pack import pack, stop_words
from endonym.lang.script import in_language
from endonym.lang.segment import graphemes, segmenter, sentences, words

SHORTEST, LONGEST = 4, 80
"""Words of a sentence that is used: a shorter one has no order to lose, a longer one is a list."""
WORDS_PER_PLACE = 12
SPACED = re.compile(r"\s+|\S+")
CLOSING = re.compile(r"[\s.!?…。！？\"'”’)\]]*$")
ENGLISH = (
    *(
        "government",
        "however",
        "system",
        "important",
        "development",
        "people",
        "different",
        "school",
    ),
    *("information", "water", "because", "service", "through", "company", "between", "community"),
)
KOREAN = (
    *(
        "정부",
        "그러나",
        "제도",
        "중요한",
        "발전",
        "사람들",
        "다른",
        "정보",
        "때문에",
        "학교",
        "서비스",
    ),
    *("통하여", "회사", "사이", "공동체"),
)
"""What a translation leaves as it was; Korean words in a language that is written in Latin itself."""


@dataclass(frozen=True)
class _Language:
    """What a pack says that damage needs."""

    cut: Callable[[str], list[str]]
    is_spaced: bool
    function_words: frozenset[str]
    endings: tuple[str, ...]
    """Function words that stick to the end of others, longest first."""
    particles: tuple[str, ...]
    foreign: tuple[str, ...]


def pairs(
    documents: Iterable[Document],
    language: str,
    *,
    seed: int = 0,
    kinds: Sequence[str] = (),
    takes: Callable[[str], bool] = lambda id: True,
) -> Iterator[Preference]:
    """A pair for each different sentence of the documents that is long enough and in the language.

    kinds: of damage; none named, all for which the language's pack has what they need.
    takes: which pairs are wanted, by id; the others cost nothing.

    A pair has no prompt: both sides are an assistant's words, judged by themselves.
    """
    chosen = _kinds(language, kinds)
    seen: set[bytes] = set()
    for document in documents:
        for sentence in sentences(document.text, language):
            name = blake2b(sentence.encode(), digest_size=12)
            id = f"fluency/{language}/{seed}/{name.hexdigest()}"
            if name.digest() in seen or not takes(id) or not _is_fit(sentence, language):
                continue
            seen.add(name.digest())
            random = Random(f"fluency {language} {seed} {sentence}")
            for kind in random.sample(chosen, len(chosen)):
                worse = damaged(sentence, language, kind, random)
                if worse is not None:
                    yield Preference(
                        id=id,
                        prompt=[],
                        chosen=[{"role": "assistant", "content": sentence}],
                        rejected=[{"role": "assistant", "content": worse}],
                        language=language,
                        source=document.source,
                        licence=document.licence,
                        task=kind,
                    )
                    break


def damaged(sentence: str, language: str, kind: str, random: Random) -> str | None:
    """The sentence with damage of a kind; None where there is no place for it."""
    known = _language(language)
    closing = CLOSING.search(sentence).start()  # its end mark stays where it is
    pieces, end = known.cut(sentence[:closing]), sentence[closing:]
    for _ in range(1 + len(pieces) // WORDS_PER_PLACE):
        if places := _places(pieces):
            pieces = [piece for piece in KINDS[kind](pieces, places, known, random) if piece]
    worse = "".join(pieces).strip() + end
    return worse if worse != sentence else None


def _is_fit(sentence: str, language: str) -> bool:
    if not SHORTEST <= len(words(sentence, language)) <= LONGEST:
        return False
    return in_language(sentence, language)


def _kinds(language: str, named: Sequence[str]) -> list[str]:
    """The kinds that are asked for, or all that the pack allows."""
    known = _language(language)
    lacking = set()
    if not known.function_words and not known.endings:
        lacking.add("function")
    if not known.particles:
        lacking.add("register")
    for kind in named:
        if kind not in KINDS:
            raise DataError(f"there is no damage {kind!r}", do=nearest(kind, list(KINDS)))
        if kind in lacking:
            raise DataError(
                f"no damage {kind!r} can be done to {language!r}",
                wanted="stop words (function) or particles (register) in its pack",
            )
    return list(named) or [kind for kind in KINDS if kind not in lacking]


@lru_cache(maxsize=16)
def _language(language: str) -> _Language:
    own, listed = pack(language), stop_words(language)
    words("", language)  # says it where the language has no word engine
    endings = {word[1:] for word in listed if word.startswith("-")}
    nouns = endings & set(own.particles)
    return _Language(
        cut=segmenter(language) or SPACED.findall,
        is_spaced=segmenter(language) is None,
        function_words=frozenset(word for word in listed if not word.startswith("-")),
        endings=tuple(sorted(nouns or endings, key=lambda each: (-len(each), each))),
        particles=tuple(own.particles + ([] if endings else own.polite)),
        foreign=KOREAN if "Latn" in own.scripts else ENGLISH,
    )


def _places(pieces: list[str]) -> list[int]:
    """Where among the pieces words stand."""
    return [n for n, piece in enumerate(pieces) if any(c.isalnum() for c in piece)]


# --- kinds of damage: (pieces, places of words, language, random) -> pieces -------------------------


def _order(pieces: list[str], places: list[int], known: _Language, random: Random) -> list[str]:
    swaps = [(a, b) for a, b in pairwise(places) if pieces[a] != pieces[b]]
    if not swaps:
        return pieces
    if len(places) > SHORTEST and random.random() < 0.3:
        moved = [pieces[n] for n in places]
        moved.insert(1, moved.pop())
        return _put(pieces, dict(zip(places, moved)))
    a, b = random.choice(swaps)
    return _put(pieces, {a: pieces[b], b: pieces[a]})


def _function(pieces: list[str], places: list[int], known: _Language, random: Random) -> list[str]:
    whole = [n for n in places if pieces[n].casefold() in known.function_words]
    ended = [(n, ending) for n in places if (ending := _ending(pieces[n], known.endings))]
    is_dropped = random.random() < 0.5
    if ended and (not whole or random.random() < 0.5):
        n, ending = random.choice(ended)
        stem = pieces[n].removesuffix(ending)
        return _put(pieces, {n: stem if is_dropped else stem + ending + ending})
    if not whole:
        return pieces
    n = random.choice(whole)
    if not is_dropped:
        return _put(pieces, {n: pieces[n] + (" " if known.is_spaced else "") + pieces[n]})
    beside = n + 1 if n + 1 < len(pieces) and pieces[n + 1].isspace() else n
    return [piece for number, piece in enumerate(pieces) if number not in (n, beside)]


def _foreign(pieces: list[str], places: list[int], known: _Language, random: Random) -> list[str]:
    own = [n for n in places if any(map(str.isalpha, pieces[n])) and pieces[n] not in known.foreign]
    return _put(pieces, {random.choice(own): random.choice(known.foreign)}) if own else pieces


def _register(pieces: list[str], places: list[int], known: _Language, random: Random) -> list[str]:
    if known.endings:
        ended = [(n, ending) for n in places if (ending := _ending(pieces[n], known.particles))]
        if not ended:
            return pieces
        n, ending = random.choice(ended)
        other = _another(ending, known.particles, random)
        return _put(pieces, {n: pieces[n].removesuffix(ending) + other})
    said = [n for n in places if pieces[n] in known.particles]
    if said:
        n = random.choice(said)
        return _put(pieces, {n: _another(pieces[n], known.particles, random)})
    n = random.choice(places[:-1] or places)
    space = " " if known.is_spaced else ""
    return _put(pieces, {n: pieces[n] + space + random.choice(known.particles)})


def _repeated(pieces: list[str], places: list[int], known: _Language, random: Random) -> list[str]:
    length = random.choice((1, 1, 2, 3))
    first = random.randrange(max(1, len(places) - length + 1))
    begin, end = places[first], places[min(first + length, len(places)) - 1] + 1
    space = [" "] if known.is_spaced else []
    return pieces[:end] + space + pieces[begin:end] + pieces[end:]


def _spacing(pieces: list[str], places: list[int], known: _Language, random: Random) -> list[str]:
    if not known.is_spaced:
        joints = [n for n, after in pairwise(places) if after == n + 1 and pieces[n][-1] != " "]
        return _put(
            pieces, {n: pieces[n] + " " for n in random.sample(joints, min(1, len(joints)))}
        )
    long = [n for n in places if len(graphemes(pieces[n])) > 2]
    gaps = [n for n, piece in enumerate(pieces) if piece.isspace()]
    if gaps and (not long or random.random() < 0.5):
        return _put(pieces, {random.choice(gaps): ""})
    if not long:
        return pieces
    n = random.choice(long)
    signs = graphemes(pieces[n])
    at = random.randrange(1, len(signs))
    return _put(pieces, {n: "".join(signs[:at]) + " " + "".join(signs[at:])})


def _another(particle: str, particles: Sequence[str], random: Random) -> str:
    """A particle in place of this one; where the pack knows no other, the same."""
    others = [each for each in particles if each != particle]
    return random.choice(others) if others else particle


def _put(pieces: list[str], changed: dict[int, str]) -> list[str]:
    return [changed.get(n, piece) for n, piece in enumerate(pieces)]


def _ending(word: str, endings: Sequence[str]) -> str:
    """The longest of the endings that a word carries, or ""."""
    return max((e for e in endings if len(word) > len(e) and word.endswith(e)), key=len, default="")


KINDS: dict[str, Callable[[list[str], list[int], _Language, Random], list[str]]] = {
    "order": _order,
    "function": _function,
    "foreign": _foreign,
    "register": _register,
    "repeated": _repeated,
    "spacing": _spacing,
}
