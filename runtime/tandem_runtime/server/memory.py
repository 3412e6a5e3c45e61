"""What the C library does with memory that is freed: keeps it, as a pod needs as much again for the next page of KV."""

from __future__ import annotations

import ctypes
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
LARGEST_KEPT_BYTES: Final = 32 << 20
"""glibc takes no more; pages of KV and their frames are smaller."""
KEPT_BYTES: Final = 256 << 20
"""Sixteen times what may wait for the engine; what is beyond it goes back to the kernel."""


def keep_freed_memory() -> bool:
    """Whether the C library can do it (glibc). By default it gives large blocks back at once, and the kernel clears
    and maps the same memory again for each page: that was a third of the processor time of a hand-off."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
