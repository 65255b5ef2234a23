"""What a process that makes and drops whole models every round asks of allocator, kernel and garbage collector."""

import ctypes
import gc
import os
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
"""Of glibc's malloc.h."""
_OF_ITS_OWN_BYTES: Final = 1 << 20


def settle_memory() -> None:
    """Call once, before the first tensor is made.

    Tensors get pages of their own and give them back. By default glibc raises its threshold for this to 32 MiB
    with the sizes it sees; then the memory of dropped centers, which before glibc 2.38 fits no aligned request
    again, adds up to many models. Fresh pages are fetched as huge ones, else a center of 200 MB costs 50,000 page
    faults. And the collector need not look through everything that was imported: that takes 0.1 s each time.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # Other C libraries have no such threshold.
        mallopt(_M_MMAP_THRESHOLD, _OF_ITS_OWN_BYTES)
    gc.freeze()
