"""How long a replacement waits: nobody at first, then twice as long each time, so that a broken start cannot spin."""

import hashlib
from typing import Final

LONGEST: Final = 60.0
"""Seconds."""
JITTER: Final = 0.1
"""Largest share that is added, so that particles that failed together do not return together."""


def backoff(setbacks: int, *salt: str | int) -> float:
    """Seconds between an end and the next start: 0, 1, 2, 4 ... 60 after 1, 2, 3 ... setbacks, and up to a tenth more.

    The tenth is a fixed function of `salt` (job's uid, index, incarnation), so that a plan made twice is the same.
    """
    if setbacks < 2:
        return 0.0
    digest = hashlib.blake2b("/".join(map(str, salt)).encode(), digest_size=4).digest()
    spread = int.from_bytes(digest, "big") / 2**32
    return min(LONGEST, 2.0 ** min(setbacks - 2, 30)) * (1 + JITTER * spread)
