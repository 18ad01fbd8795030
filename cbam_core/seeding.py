"""Seeds as a function of what they depend on."""

import hashlib


def seed_of(*parts: int | str) -> int:
    """A well-mixed 63-bit seed from what it depends on, such as (seed, "epoch", 3)."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
