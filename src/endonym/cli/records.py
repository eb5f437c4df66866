"""endonym show and audit: one artifact, looked at and followed back; and what a reference to one means."""

from pathlib import Path
from typing import Any

from endonym.cli.options import AsJson, Reference, StoreRoot, print_json
from endonym.core.errors import RecipeError, StoreError


def show(ref: Reference, store: StoreRoot = Path("store"), as_json: AsJson = False) -> None:
    """An artifact's record: what made it, from what, with which figures."""
    from rich.console import Console
    from rich.pretty import Pretty

    artifact = resolve(ref, store)
    if as_json:
        return print_json({"path": str(artifact.path), **artifact.record})
    console = Console()
    console.print(
        f"[bold]{artifact.path.name}[/]  {artifact.kind}, made {artifact.record['created']}"
    )
    for part in ("settings", "inputs", "figures", "licences", "environment"):
        console.print(f"\n{part}", style="bold")
        console.print(Pretty(artifact.record[part]))
    console.print("\nfiles", style="bold")
    for name, file in artifact.record["files"].items():
        console.print(f"  {name}  {file['bytes']:,} bytes  sha256 {file['sha256'][:16]}...")


def audit(ref: Reference, store: StoreRoot = Path("store"), as_json: AsJson = False) -> None:
    """Walk from an artifact to all it came from; read every byte and compare it with its record."""
    from rich.console import Console

    from endonym.core.audit import audit as walk
    from endonym.core.store import Store

    result = walk(resolve(ref, store), Store(store))
    if as_json:
        return print_json(result)
    console = Console()
    for row in result["artifacts"]:
        console.print(
            f"{'  ' * row['depth']}{row['stage']} {row['address'][:16]}  "
            f"{row['files']} files, {row['bytes']:,} bytes: all as recorded"
        )
    console.print(f"\nlicences: {', '.join(result['licences']) or 'none recorded'}")
    for row in result["sources"]:
        console.print(
            f"outside file  sha256 {row['sha256'][:16]}...  ({row['stage']}.{row['field']})"
        )


def resolve(ref: str, root: Path) -> Any:
    """The artifact that a folder, an address or RECIPE-SCALE/STAGE means."""
    from endonym.core.artifact import RECORD, read_artifact
    from endonym.core.store import Store

    for folder in (Path(ref), root / "runs" / ref, root / "artifacts" / ref):
        if (folder / RECORD).is_file():
            return read_artifact(folder.resolve())
    if not root.is_dir():
        raise StoreError("there is no store", where=root, do="name it with --store DIR")
    found = Store(root).by_prefix(ref) if len(ref) >= 4 else []
    if len(found) == 1:
        return found[0]
    runs = sorted(
        f"{p.parent.name}/{p.name}" for p in (root / "runs").glob("*/*") if p.is_symlink()
    )
    if found:
        raise RecipeError(
            "the reference means several artifacts",
            where=ref,
            got=", ".join(a.path.name for a in found),
            do="give more digits",
        )
    raise RecipeError(
        "the reference means no artifact of this store",
        where=ref,
        wanted="a folder with a record.json, an address, or RECIPE-SCALE/STAGE",
        got=f"known: {', '.join(runs) or 'no runs yet'}",
    )
