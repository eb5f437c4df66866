"""Rules that change the form of a reply and never its words: wrap it, cut it into lines, a list or
sections, add a sentence of the pack."""

import json
import re
from collections.abc import Callable

from endonym.lang.pack import pack
from endonym.lang.segment import words
from endonym.synth.instruct.draft import Draft, is_word

MARKER = re.compile(r"^\s*(?:[-*•]|\(?\d{1,2}[.)])\s+")
CLOSERS = " \t\n.!?。…~"
LONGEST_TITLE = 60


def _set(draft: Draft, name: str, found: int) -> bool:
    """Sets a number to what the reply has, where the kind allows that many."""
    if found in draft.grid(name):
        draft.drawn[name] = found
    return found in draft.grid(name)


def _listed(draft: Draft, marker: Callable[[int], str]) -> str | None:
    """The list of a reply with other markers, what stands around it left as it is; without a list all
    parts as one."""
    (name,) = draft.kind.range
    parts = draft.parts()
    is_item = [bool(MARKER.match(part)) for part in parts]
    if not any(is_item):
        is_item = [True] * len(parts)
    if not _set(draft, name, sum(is_item)):
        return None
    numbers = iter(range(1, len(parts) + 1))
    return "\n".join(
        f"{marker(next(numbers))} {MARKER.sub('', part)}" if item else part
        for part, item in zip(parts, is_item)
    )


def _bullets(draft: Draft) -> str | None:
    sign = draft.random.choice("-*")
    return _listed(draft, lambda number: sign)


def _numbered(draft: Draft) -> str | None:
    return _listed(draft, lambda number: f"{number}.")


def _lines(draft: Draft) -> str | None:
    (name,) = draft.kind.range
    parts = draft.parts()
    return "\n".join(parts) if _set(draft, name, len(parts)) else None


def _grouped(draft: Draft, name: str) -> list[str] | None:
    """Groups as many as a number of the grid says that the parts allow."""
    fits = [number for number in draft.grid(name) if number <= len(draft.parts())]
    if not fits:
        return None
    draft.drawn[name] = draft.random.choice(fits)
    return draft.groups(draft.drawn[name])


def _stars(draft: Draft) -> str | None:
    groups = _grouped(draft, "num_paragraphs")
    return "\n***\n".join(groups) if groups else None


def _paragraphs(draft: Draft) -> str | None:
    groups = _grouped(draft, "count")
    return "\n\n".join(groups) if groups else None


def _first_word(draft: Draft) -> str | None:
    groups = _grouped(draft, "num_paragraphs")
    if not groups:
        return None
    nth = draft.random.randrange(len(groups))
    found = words(groups[nth], draft.language)
    if not found or not groups[nth].startswith(found[0]) or not is_word(found[0]):
        return None
    draft.drawn |= {"nth_paragraph": nth + 1, "first_word": found[0]}
    return "\n\n".join(groups)


def _sections(draft: Draft) -> str | None:
    groups = _grouped(draft, "num_sections")
    if not groups:
        return None
    head = draft.drawn["section_spliter"]
    return "\n\n".join(f"{head} {number}\n{part}" for number, part in enumerate(groups, 1))


def _append(draft: Draft) -> str:
    return f"{draft.reply.rstrip()}\n\n{draft.drawn['end_phrase']}"


def _prepend(draft: Draft) -> str:
    return f"{draft.drawn['text']}\n\n{draft.reply.lstrip()}"


def _suffix(draft: Draft) -> str | None:
    """A particle right after the last word; not beside the words of `texts` (speakers who say so)."""
    reply, ending = draft.reply.rstrip(CLOSERS), draft.drawn["text"]
    for polite in sorted(pack(draft.language).polite, key=len, reverse=True):
        reply = reply.removesuffix(polite).rstrip(CLOSERS)
    if not reply or not (reply[-1].isalpha() or not reply[-1].isascii()):
        return None
    others = [*draft.kind.texts, *(each for each in pack(draft.language).polite if each != ending)]
    return None if any(each in reply for each in others) else reply + ending


def _postscript(draft: Draft) -> str:
    said = draft.random.choice(draft.kind.texts)
    return f"{draft.reply.rstrip()}\n\n{draft.drawn['postscript_marker']} {said}"


def _placeholders(draft: Draft) -> str | None:
    if "[" in draft.reply:
        return None
    said = draft.random.choice(draft.kind.texts)
    found = len(re.findall(r"\[[^\]]+\]", said))
    draft.drawn["num_placeholders"] = found
    return f"{draft.reply.rstrip()}\n\n{said}"


def _title(draft: Draft) -> str | None:
    """The query as a heading, where it is one short line."""
    title = draft.query.strip().rstrip(CLOSERS)
    if "\n" in title or not 0 < len(title) <= LONGEST_TITLE or re.search(r"[<>:\"“]", title):
        return None
    return f"<<{title}>>\n\n{draft.reply.lstrip()}"


def _highlight(draft: Draft) -> str | None:
    """Stars around words that carry meaning, where they first stand."""
    known = [word for word in draft.keywords() if "*" not in draft.reply]
    fits = [number for number in draft.grid("num_highlights") if number <= len(known)]
    if not fits:
        return None
    draft.drawn["num_highlights"] = count = draft.random.choice(fits)
    chosen = draft.random.sample(known, count)
    chosen = [
        word for word in chosen if not any(word in other for other in chosen if other != word)
    ]
    if len(chosen) < count:
        return None
    reply = draft.reply
    for word in chosen:
        reply = reply.replace(word, f"*{word}*", 1)
    return None if "**" in reply else reply  # two that touch would read as one in bold


def _json(draft: Draft) -> str:
    """The query and the reply under two keys of the pack, "question|answer"."""
    question, answer = draft.random.choice(draft.kind.texts).split("|")
    said = {question: draft.query, answer: draft.reply}
    text = json.dumps(said, ensure_ascii=False, indent=2)
    return f"```json\n{text}\n```" if draft.random.random() < 0.5 else text


def _quote(draft: Draft) -> str | None:
    return None if '"' in draft.reply else f'"{draft.reply.strip()}"'


def _repeat(draft: Draft) -> str:
    return f"{draft.query}\n\n{draft.reply.lstrip()}"


def _without_commas(draft: Draft) -> str:
    return re.sub(r"(?<=\d),(?=\d)", "", draft.reply).replace(", ", " ").replace(",", " ")


def _native_digits(draft: Draft) -> str | None:
    """0-9 in the language's own digits, where the reply has any."""
    own = pack(draft.language).digits
    if not own or not re.search("[0-9]", draft.reply):
        return None
    return draft.reply.translate(dict(zip(map(ord, "0123456789"), own)))


SHAPES: dict[str, Callable[[Draft], str | None]] = {
    "bullets": _bullets,
    "numbered": _numbered,
    "lines": _lines,
    "stars": _stars,
    "paragraphs": _paragraphs,
    "first_word": _first_word,
    "sections": _sections,
    "append": _append,
    "prepend": _prepend,
    "suffix": _suffix,
    "postscript": _postscript,
    "placeholders": _placeholders,
    "title": _title,
    "highlight": _highlight,
    "json": _json,
    "quote": _quote,
    "repeat": _repeat,
    "without_commas": _without_commas,
    "native_digits": _native_digits,
    "upper": lambda draft: draft.reply.upper(),
    "lower": lambda draft: draft.reply.lower(),
}
