"""What cannot be read: one row of a file, or the rest of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Broken:
    """A row that cannot be read, why, and how it begins; or all that is left of a file."""

    reason: str
    excerpt: str = ""
    is_rest: bool = False
    """Nothing behind this place can be read: how many rows stood there is not known."""


class Damaged(Exception):
    """A compressed file that ends early or does not decompress."""
