"""`endonym new-language`: the beginning of a language's pack, and what a speaker must check."""

from pathlib import Path
from typing import Annotated

import typer

from endonym.cli.options import AsJson, print_json


def new_language(
    code: Annotated[str, typer.Argument(metavar="CODE", help="ISO 639: lo, km, mn, sr_Latn.")],
    out: Annotated[
        Path,
        typer.Option("--out", envvar="ENDONYM_PACKS", help="The pack is written to OUT/CODE."),
    ] = Path("packs"),
    as_json: AsJson = False,
) -> None:
    """Write a pack for a language from CLDR, and say what a speaker must still check."""
    from rich.console import Console

    from endonym.lang.locale import missing, skills
    from endonym.lang.new_language import write
    from endonym.lang.pack import has_own_pack, pack_from

    folder = write(code, out)
    pack = pack_from(folder)
    facts, lacking = skills(pack.language), missing(pack.language)
    hides = has_own_pack(pack.language)
    if as_json:
        return print_json(
            {
                "path": str(folder),
                "pack": pack.model_dump(exclude={"unchecked"}),
                "unchecked": pack.unchecked,
                "facts": facts,
                "missing_facts": lacking,
                "hides_ours": hides,
            }
        )
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"{pack.name} ({pack.own_name}): {folder / 'pack.toml'}")
    console.print(
        f"  scripts {', '.join(pack.scripts)}; digits {pack.digits or '0-9'}; "
        f"currency {pack.currency or 'none'}; words: {pack.count.words}"
    )
    console.print("\nA speaker must still check:", style="bold")
    for line in pack.unchecked:
        console.print(f"  - {line}")
    console.print(
        f"\nFacts that the libraries have for it (lang/locale.py): {', '.join(facts) or 'none'}"
    )
    for skill, reason in lacking.items():
        console.print(f"  no {skill}: {reason}")
    if hides:
        console.print(
            f"\nendonym has a pack of {pack.name}; used from here, this one hides it whole."
        )
    console.print(f"\nTo use it: export ENDONYM_PACKS={out.resolve()}")
