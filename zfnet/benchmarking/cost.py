"""The cost of a call: seconds and peak memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def timed(call: Callable[[], Any], device: torch.device) -> tuple[Any, float, float]:
    """Return a call's result, its wall-clock seconds and its CPU seconds of all threads.

    Work that is queued on a GPU counts as wall-clock time.
    """
    _synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    _synchronize(device)
    return result, time.perf_counter() - wall, time.process_time() - cpu


def peak_memory(call: Callable[[], Any], device: torch.device) -> float:
    """Return the peak memory in MiB of the tensors that a call allocates.

    Tensors that exist before the call do not count. The profiler records every allocation of
    PyTorch, so the number does not depend on what the process keeps in reserve.

    Args:
        call: The function to measure.
        device: Where it computes.

    Example:
        >>> round(peak_memory(lambda: torch.zeros(4, 2**20), torch.device("cpu")))
        16
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it reports a missing GPU driver otherwise
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    results: Any = recorded.profiler
    events = [e for e in results.kineto_results.events() if e.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak / 2**20


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
