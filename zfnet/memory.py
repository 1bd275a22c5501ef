"""Memory allocation: keep glibc from returning freed tensors' memory to the system."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of <malloc.h>


def keep_freed_memory() -> None:
    """Let this process reuse the memory of freed tensors. It grows to its peak and stays there.

    Otherwise each new page costs a page fault and is zeroed, for each layer of each batch. On
    a virtual machine that took a fifth to a third of the time. Only the commands call it,
    because it changes the whole process. It does nothing without glibc.

    Example:
        >>> keep_freed_memory()  # doctest: +SKIP
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)  # no separate mappings, which are returned when freed
        mallopt(M_TRIM_THRESHOLD, -1)  # the heap does not shrink
