"""Time methods: a warm-up, then all methods alternating, with every repetition and peak memory."""

from __future__ import annotations

import contextlib
import ctypes
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

STATM = Path("/proc/self/statm")
PAGE = 4096


@dataclass(frozen=True)
class Timing:
    """The timing of a method.

    Attributes:
        seconds: Seconds of each repetition.
        result: What the warm-up returned.
        memory: Peak memory in MiB; NaN where it is unknown.
    """

    seconds: list[float]
    result: Any
    memory: float

    def summary(self) -> list[float]:
        """[median, least, most] seconds."""
        return spread(self.seconds)


def spread(values: list[float]) -> list[float]:
    """[median, least, most]."""
    return [statistics.median(values), min(values), max(values)]


def race(methods: dict[Any, Callable[[], object]], repeats: int, device: str) -> dict[Any, Timing]:
    """Run each method once to warm up and measure memory, then all alternating, `repeats` times."""
    warm = {name: peak(method, device) for name, method in methods.items()}
    seconds: dict[Any, list[float]] = {name: [] for name in methods}
    for _ in range(repeats):
        for name, method in methods.items():
            seconds[name].append(clock(method, device))
    return {name: Timing(seconds[name], *warm[name]) for name in methods}


def clock(method: Callable[[], object], device: str) -> float:
    """Seconds of one run, with a GPU synchronized before and after."""
    finish(device)
    start = time.perf_counter()
    method()
    finish(device)
    return time.perf_counter() - start


def finish(device: str) -> None:
    """Synchronize a GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def peak(method: Callable[[], object], device: str) -> tuple[object, float]:
    """What a method returns, and the rise of memory in MiB: a GPU's, or the process's, sampled."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = method()
        return result, (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if not STATM.exists():
        return method(), float("nan")

    def resident() -> int:
        return int(STATM.read_text().split()[1]) * PAGE

    # Return freed memory, which would hide a rise.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    done, before = threading.Event(), resident()
    highest = [before]

    def watch() -> None:
        while not done.wait(0.005):
            highest[0] = max(highest[0], resident())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        result = method()
    finally:
        highest[0] = max(highest[0], resident())
        done.set()
        thread.join()
    return result, (highest[0] - before) / 2**20


def best(settings: list[int], run: Callable[[int], object], device: str) -> int:
    """The setting with which `run` is fastest, by the better of two runs each, after a warm-up."""
    run(settings[0])
    rounds = [[clock(lambda s=setting: run(s), device) for setting in settings] for _ in range(2)]
    return min(zip(map(min, *rounds), settings, strict=True))[1]
