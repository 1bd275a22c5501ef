"""Memory allocation: keep freed memory in the process instead of returning it to the system."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # from <malloc.h>


def keep_freed_memory() -> None:
    """Configure glibc to reuse the memory of freed tensors.

    Otherwise every layer of every batch causes page faults, and the kernel zeroes the pages. On a
    virtual machine this took a fifth to a third of the time. The process keeps its peak memory.
    Only the commands call this function, because it changes the whole process. Without glibc it
    does nothing.

    Example:
        >>> keep_freed_memory()  # doctest: +SKIP
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)  # allocate from the heap; freed mappings would be returned
        mallopt(M_TRIM_THRESHOLD, -1)  # the heap does not shrink
