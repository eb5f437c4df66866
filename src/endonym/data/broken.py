"""What cannot be read: one row of a file, or the rest of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Broken:
    """A row that cannot be read, why, and how it begins."""

    reason: str
    excerpt: str = ""


class Damaged(Exception):
    """A compressed file that ends early or does not decompress."""
