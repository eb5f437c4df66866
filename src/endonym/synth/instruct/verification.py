"""Step 7, second half: a reply must obey its check, and keep to the scripts that its reader reads.

A packed check is IFEval's or ours (rewards/constraints.py). A made one holds functions: all of them must
say True of the reply as it was written and as its language counts it. (The release took any True of two
functions on three tokenisations.)

Foreign script: letters outside the scripts of the query's language and Latin are refused, unless what
was asked holds letters of that script or names the script or a language written in it, as CLDR calls
them ("ตัวอักษรจีน", "한자"). The release refused any Chinese character, right answers about Chinese as
well. Latin letters must not outnumber the own ones, unless a language written in Latin is named.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from endonym.lang.cldr import locale_of
from endonym.lang.identify import DECIDES
from endonym.lang.pack import pack
from endonym.lang.script import COMPOUNDS, counts, why_not
from endonym.rewards.constraints import applies, obeys
from endonym.synth.instruct.pool import FUNCTION
from endonym.synth.instruct.running import Runner
from endonym.synth.instruct.verifiers import views

WRITTEN_IN = {
    **{code: (script,) for script, code in DECIDES.items()},
    **{code: ("Hani",) for code in ("zh", "yue")},
    **{code: ("Arab",) for code in ("ar", "fa", "ur")},
    **{code: ("Cyrl",) for code in ("ru", "uk", "bg")},
    **{code: ("Deva",) for code in ("hi", "sa", "ne", "mr")},
    **{code: ("Latn",) for code in ("en", "fr", "de", "es", "it", "pt", "la", "vi", "id", "ms")},
    "bn": ("Beng",),
    "ja": COMPOUNDS["Jpan"],
    "ko": COMPOUNDS["Kore"],
    "pi": ("Thai", "Deva", "Sinh", "Mymr", "Khmr", "Laoo"),
}
"""Languages that a query is likely to ask about. CLDR's others have names ("กา") that stand in many a
word of another language."""


LITERAL = re.compile(r"“[^”]*”|‘[^’]*’|\"[^\"]*\"|「[^」]*」|«[^»]*»|(?<!\w)'[^']*'(?!\w)|\d+")
"""What an instruction wants word for word: what stands in quotation marks, and numbers."""
SIGN = re.compile(
    "(?<![\u0370-\u03ff\u1f00-\u1fff])[\u0370-\u03ff](?![\u0370-\u03ff\u1f00-\u1fff])"
)
"""A Greek letter by itself (λ, π) is a sign of mathematics and no script."""


def all_hold(
    asked: Sequence[tuple[str, dict[str, Any], str]], runner: Runner | None
) -> list[bool | None]:
    """Whether each (reply, check, its language) holds; None where that cannot be said: a function fails
    on the reply, or the sandbox does. Checks that hold functions need a runner, which runs each function
    once for all its replies."""
    found: list[bool | None] = [None] * len(asked)
    groups: dict[tuple[tuple[str, ...], str], list[int]] = {}
    for place, (reply, check, language) in enumerate(asked):
        if check["type"] == FUNCTION:
            groups.setdefault((tuple(check["functions"]), language), []).append(place)
        else:
            found[place] = applies(check) and obeys(reply, check)
    jobs = []
    for (functions, language), places in groups.items():
        inputs = [views(asked[place][0], language) for place in places]
        jobs += [(source, inputs) for source in functions]
    done = iter(runner.every(jobs)) if jobs else iter(())
    for (functions, _), places in groups.items():
        results = [next(done) for _ in functions]
        for number, place in enumerate(places):
            said = [None if each is None else each[number] for each in results]
            found[place] = False if False in said else None if None in said else True
    return found


def foreign(reply: str, query: str, language: str, instruction: str = "") -> str:
    """ "" where a reply keeps to the scripts that it may use, else why not.

    instruction: the constraint in words. What it names counts as asked for, and so do the letters of
    its quoted literals; its other letters are only the language that it happens to be told in.
    Reasons are those of lang/script.py's why_not. A reply without letters is in no script.
    """
    reply = SIGN.sub(" ", reply)
    found = counts(reply)
    if not found:
        return ""
    quoted = " ".join(LITERAL.findall(instruction))
    allowed = set(pack(language).scripts) | set(counts(f"{query} {quoted}")) - {"Latn"}
    named = named_scripts(f"{query}\n{instruction}", language)
    if "Latn" not in named:
        return why_not(reply, allowed | named)
    outside = sorted(code for code in found if code not in allowed | named)
    return f"foreign letters: {', '.join(outside)}" if outside else ""


def named_scripts(text: str, language: str) -> set[str]:
    """Scripts that a text names, by their own name or by that of a language written in them, in
    `language` or in English; the language's own name does not count."""
    folded = text.casefold()
    return {code for name, scripts in _names(language) if name in folded for code in scripts}


@lru_cache(maxsize=32)
def _names(language: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(name in lower case, scripts)."""
    found = {}
    for spoken in dict.fromkeys((language, "en")):
        locale = locale_of(spoken)
        for code, scripts in WRITTEN_IN.items():
            if code != language and code in locale.languages:
                found[locale.languages[code].casefold()] = scripts
        for code in ("Hani", "Hira", "Kana", "Hang", "Cyrl", "Arab", "Deva", "Grek", "Hebr"):
            if code in locale.scripts:
                found[locale.scripts[code].casefold()] = (code,)
    return tuple(found.items())
