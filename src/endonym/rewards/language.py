"""Whether a reply keeps to the reader's language and manners."""

from endonym.lang.pack import pack
from endonym.lang.script import in_language
from endonym.rewards.base import Completion, column, reply_text

CLOSERS = " \t\n.!?。…~\"'”’)]*"


def language(
    prompts, completions: list[Completion], language=None, **columns
) -> list[float | None]:
    """1.0 where the reply keeps to the scripts of `language` (lang/script.py), else 0.0.

    None where the row names no language: a bare number is in none.
    """
    codes = column("language", language, completions)
    return [
        None if not code else float(in_language(reply_text(completion), code))
        for completion, code in zip(completions, codes)
    ]


def is_polite(text: str, code: str) -> bool:
    """Whether a text ends in one of the language's polite endings, before closing punctuation."""
    return text.rstrip(CLOSERS).endswith(tuple(pack(code).polite or ["\0"]))


def particle(
    prompts, completions: list[Completion], language=None, **columns
) -> list[float | None]:
    """1.0 where the reply ends politely (ครับ/ค่ะ; -니다/-요), else 0.0.

    None where the row names no language or the language's pack lists no polite ending.
    """
    codes = column("language", language, completions)
    return [
        None if not code or not pack(code).polite else float(is_polite(reply_text(c), code))
        for c, code in zip(completions, codes)
    ]
