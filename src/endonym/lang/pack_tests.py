"""A pack's own tests: the complaints that `check` of lang/pack.py hands back.

They hold what one part of a pack says against another: words against the scripts, engines against
the extra, templates against their places, examples against what the engines cut.
"""

from collections.abc import Iterator
from pathlib import Path
from string import Formatter

from endonym.core.config import nearest
from endonym.core.errors import EndonymError
from endonym.lang.cldr import UNSPACED
from endonym.lang.normalize import RULES, apply
from endonym.lang.pack import Pack, read_stop_words
from endonym.lang.script import script_of, why_not
from endonym.lang.segment import sentences, words

# Engine: the script that it cuts, the extra that installs it ("": it is ours).
ENGINES = {
    "newmm": ("Thai", "th"),
    "crfcut": ("Thai", "th"),
    "thai": ("Thai", "th"),
    "kiwi": ("Hang", "ko"),
    "hangul": ("Hang", ""),
}
OWN_FILES = ("stop_words.txt", "almanac.toml", "needle.toml")


def complaints(found: Pack, folder: Path) -> Iterator[str]:
    """What is wrong, a sentence each: "key: what"."""
    stops = read_stop_words(folder)
    for rule in found.normalize:
        if rule not in RULES:
            yield f"normalize: there is no rule {rule!r}; {nearest(rule, list(RULES))}"
            return  # the word lists below are held against these rules
    reason = why_not(found.own_name, found.scripts)
    if reason:
        yield f"own_name: {found.own_name!r} is not in the language's scripts: {reason}"
    yield from _word_lists(found, stops)
    yield from _stop_words(found, stops)
    yield from _choice(found)
    yield from _engines(found)
    yield from _filters(found, stops)
    yield from _licences(found, folder)
    yield from _examples(found)


def _word_lists(found: Pack, stops: frozenset[str]) -> Iterator[str]:
    lists = {
        "polite": found.polite,
        "particles": found.particles,
        "honorifics": found.honorifics,
        "lead_ins": found.lead_ins,
        "choice.markers": found.choice.markers,
        "stop_words.txt": [word.removeprefix("-") for word in sorted(stops)],
    }
    for key, listed in lists.items():
        for word in listed:
            scripts = {script_of(character) for character in word} - {None}
            if not word or word != word.strip():
                yield f"{key}: {word!r} is empty or has space at its ends"
            elif apply(word, found.normalize) != word:
                yield f"{key}: {word!r} is not normalised, so it would never be found"
            elif scripts - set(found.scripts):
                yield f"{key}: {word!r} is not written in {', '.join(found.scripts)}"
        if key != "stop_words.txt" and len(set(listed)) < len(listed):
            yield f"{key}: a word stands twice"


def _stop_words(found: Pack, stops: frozenset[str]) -> Iterator[str]:
    """Each must be able to turn up among the words of a text."""
    for word in sorted(stops):
        if word != word.casefold():
            yield f"stop_words.txt: {word!r} is not in lower case, so it would never be found"
        elif not word.startswith("-"):
            try:
                cut = words(word, found.language, engine=found.count.words)
            except EndonymError as error:
                yield f"stop_words.txt: {error}"
                return
            if cut != [word]:
                yield f"stop_words.txt: {word!r} is no word of {found.count.words}, which cuts {cut}"


def _choice(found: Pack) -> Iterator[str]:
    places = {"reply": {"number"}, "prompt": {"question", "options"}}
    for key, wanted in places.items():
        try:
            got = {name for _, name, _, _ in Formatter().parse(getattr(found.choice, key)) if name}
        except ValueError as error:
            yield f"choice.{key}: {error}"
            continue
        if got != wanted:
            named = ", ".join("{" + name + "}" for name in sorted(wanted))
            yield f"choice.{key}: wanted the places {named} and no others"
    if found.choice.markers:
        reply = found.choice.reply.casefold()
        if not any(marker.casefold() in reply for marker in found.choice.markers):
            yield "choice.markers: none of them stands in choice.reply, so our own reply is not read"


def _engines(found: Pack) -> Iterator[str]:
    for key, engine in found.count.model_dump().items():
        script, extra = ENGINES.get(engine, ("", ""))
        if script and script not in found.scripts:
            yield f"count.{key}: {engine} cuts {script}, which is no script of the language"
        if extra and extra != found.extra:
            yield f"extra: count.{key} = {engine!r} needs {extra!r}"
    if found.count.words == "space" and UNSPACED & set(found.scripts):
        yield "count.words: the script puts no spaces between words; name an engine or say none"


def _filters(found: Pack, stops: frozenset[str]) -> Iterator[str]:
    filters = found.filters
    for name in ("words", "word_length"):
        low, high = getattr(filters, f"min_{name}"), getattr(filters, f"max_{name}")
        if low is not None and high is not None and low >= high:
            yield f"filters: min_{name} is not below max_{name}, so nothing is kept"
    if filters.min_stop_words > len(stops):
        yield f"filters.min_stop_words: stop_words.txt holds {len(stops)} words"
    if filters.min_line_ends is not None and not filters.line_ends:
        yield "filters.min_line_ends: line_ends names no mark, so nothing is kept"


def _licences(found: Pack, folder: Path) -> Iterator[str]:
    """Each part that is not ours by rule has a licence: CLDR's facts, engines, lists of the pack."""
    engines = found.count.model_dump()
    wanted = {"cldr", *(key for key, engine in engines.items() if ENGINES.get(engine, ("", ""))[1])}
    if any((folder / name).is_file() for name in OWN_FILES):
        wanted.add("pack")
    for part in sorted(wanted - set(found.licences)):
        yield f"licences: {part} is missing: its source and licence"
    known = {"pack", "cldr", *engines, *OWN_FILES}
    for part in sorted(set(found.licences) - known):
        yield f"licences: no part {part!r}; {nearest(part, sorted(known))}"


def _examples(found: Pack) -> Iterator[str]:
    for number, example in enumerate(found.examples, 1):
        reason = why_not(example.text, found.scripts)
        if reason:
            yield f"examples: text {number} is not in the language's scripts: {reason}"
        try:
            if example.words:
                cut = words(example.text, found.language, engine=found.count.words)
                if cut != example.words:
                    yield f"examples: text {number} has the words {cut}"
            if example.sentences:
                cut = sentences(example.text, engine=found.count.sentences)
                if cut != example.sentences:
                    yield f"examples: text {number} has the sentences {cut}"
        except EndonymError as error:
            yield f"examples: text {number}: {error}"
