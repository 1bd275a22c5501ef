"""Memory between tensors: glibc gives a large one's back to the system when it is freed, and fetches it anew for the next."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of <malloc.h>


def keep_freed_memory() -> None:
    """Let this process keep what its freed tensors occupied, for the next ones: it grows to its peak and stays there.

    Every page that the system hands out costs a page fault and is zeroed, again for each layer of each batch; on a virtual
    machine that was a fifth to a third of the time. Called by the commands, never by the library, for the setting is the
    whole process's. Does nothing where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)  # no allocation gets pages of its own, which go back with it
        mallopt(M_TRIM_THRESHOLD, -1)  # and the heap does not shrink
