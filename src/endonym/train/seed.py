"""Random numbers as a function of the seed and of what they are for: nothing runs on between steps."""

import hashlib


def seed_for(seed: int, purpose: int | str) -> int:
    """63 bits out of (seed, step or purpose). Hashed, since torch's CPU generator reads the low 32 alone."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
