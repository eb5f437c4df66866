"""The beginning of a language's pack, written from CLDR alone.

    write("lo", Path("packs")) -> packs/lo/pack.toml, which passes the pack's own tests

Every key that a speaker is to fill in stands in the file, empty, and `unchecked` says what to do with
it; when the last of its lines is taken out the pack counts as written (Pack.written).
"""

import json
import tempfile
from pathlib import Path

from endonym.core.errors import DataError, RecipeError
from endonym.lang.cldr import UNCHECKED, from_cldr, locale_of
from endonym.lang.pack import check

FILE = """\
# {name}, by `endonym new-language {language}` from CLDR alone.
# When a line of `unchecked` is done, take it out. lang/pack.py says what every key means.
name = {name_}
own_name = {own_name}
scripts = {scripts}
digits = {digits}
calendar = "gregorian"
currency = {currency}
count = {{ words = {words}, sentences = "marks", syllables = "none" }}
normalize = []
polite = []
particles = []
honorifics = []
lead_ins = []
tasks = []

unchecked = [
{unchecked}
]

[licences]
cldr = {{ source = "CLDR through Babel", licence = "Unicode-3.0" }}
"""


def render(language: str) -> str:
    """pack.toml of a language from CLDR. Raises DataError where CLDR does not know it."""
    said = from_cldr(language)
    lines = list(UNCHECKED)
    if not said["currency"]:
        lines.append("currency: CLDR names no territory with a legal tender")
    if said["own_name"] == language:
        lines.append("own_name: CLDR does not have it")
    return FILE.format(
        language=language,
        name=said["name"],
        name_=_toml(said["name"]),
        own_name=_toml(said["own_name"]),
        scripts=_toml(said["scripts"]),
        digits=_toml(said["digits"]),
        currency=_toml(said["currency"]),
        words=_toml(said["count"]["words"]),
        unchecked="\n".join(f"  {_toml(line)}," for line in lines),
    )


def _toml(value: str | list[str]) -> str:
    """JSON's strings and lists of strings are TOML's."""
    return json.dumps(value, ensure_ascii=False)


def write(language: str, out: Path) -> Path:
    """The folder out/<language> with a pack that passes its own tests; all of it or nothing.

    The folder has CLDR's spelling of the code (zh-hant: zh_Hant). Raises RecipeError where there is
    something of that name already: a speaker's work is never overwritten.
    """
    language = str(locale_of(language))
    folder = out / language
    if folder.exists():
        raise RecipeError(
            "there is something here already; nothing is overwritten",
            where=folder,
            do="name another folder with --out, or move this one away",
        )
    text = render(language)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".new-language-") as making:
        made = Path(making) / language
        made.mkdir()
        (made / "pack.toml").write_text(text, encoding="utf-8")
        wrong = check(made)
        if wrong:
            raise DataError(
                f"what CLDR says of {language!r} makes no sound pack",
                where=folder,
                got="; ".join(wrong),
                do="write the pack by hand; lang/pack.py says what every key means",
            )
        made.rename(folder)
    return folder
