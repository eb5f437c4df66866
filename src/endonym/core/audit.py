"""From an artifact back to every file that it came from, each byte compared with its record."""

from typing import Any

from endonym.core.artifact import Artifact, verify
from endonym.core.errors import StoreError
from endonym.core.store import Store


def audit(artifact: Artifact, store: Store) -> dict[str, Any]:
    """Every ancestor once, its files hashed in full; the outside files and the licences met.

    Returns {"artifacts": [{stage, address, depth, files, bytes}], "sources": [{stage, field,
    sha256}], "licences": [...]}. StoreError at the first file that is not as recorded, or where an
    ancestor is missing.
    """
    by_address = {found.address: found for found in store.all()}
    rows: list[dict[str, Any]] = []
    sources: list[dict[str, Any]] = []
    licences: set[str] = set()
    seen: set[str] = set()

    def visit(one: Artifact, depth: int) -> None:
        if one.address in seen:
            return
        seen.add(one.address)
        hashed = verify(one, full=True)
        record = one.record
        rows.append(
            {
                "stage": record["stage"],
                "address": one.address,
                "depth": depth,
                "files": len(record["files"]),
                "bytes": hashed,
            }
        )
        licences.update(record["licences"])
        sources.extend(
            {"stage": record["stage"], "field": field, "sha256": content}
            for field, content in _contents(record["config"], "")
        )
        for address in _addresses(record["inputs"]):
            if address not in by_address:
                raise StoreError(
                    "an ancestor is not in the store",
                    where=store.root,
                    wanted=f"the artifact {address}",
                    got=f"needed by {record['stage']} {one.address[:16]}",
                    do="audit the store in which it was made",
                )
            visit(by_address[address], depth + 1)

    visit(artifact, 0)
    return {"artifacts": rows, "sources": sources, "licences": sorted(licences)}


def _addresses(inputs: Any) -> list[str]:
    if isinstance(inputs, str):
        return [inputs]
    return [address for value in inputs.values() for address in _addresses(value)]


def _contents(value: Any, path: str) -> list[tuple[str, str]]:
    """Every {"content": sha256} in an identity, with the field it stands in."""
    if isinstance(value, dict):
        if set(value) == {"content"}:
            return [(path, value["content"])]
        return [
            row
            for key, item in value.items()
            for row in _contents(item, f"{path}.{key}".strip("."))
        ]
    if isinstance(value, list):
        return [row for i, item in enumerate(value) for row in _contents(item, f"{path}[{i}]")]
    return []
