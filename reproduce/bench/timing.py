"""Timing that can be believed: a warm-up, methods in turn, every repetition kept, peak memory beside it."""

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
    """Seconds of each repetition, what the warm-up returned, and the memory that it took at its peak, in MiB (NaN: unknown)."""

    seconds: list[float]
    result: Any
    memory: float

    def summary(self) -> list[float]:
        """Median, least and most."""
        return spread(self.seconds)


def spread(values: list[float]) -> list[float]:
    return [statistics.median(values), min(values), max(values)]


def race(methods: dict[Any, Callable[[], object]], repeats: int, device: str) -> dict[Any, Timing]:
    """Run each method once to warm up and to measure memory, then all in turn, `repeats` times."""
    warm = {name: peak(method, device) for name, method in methods.items()}
    seconds: dict[Any, list[float]] = {name: [] for name in methods}
    for _ in range(repeats):
        for name, method in methods.items():
            seconds[name].append(clock(method, device))
    return {name: Timing(seconds[name], *warm[name]) for name in methods}


def clock(method: Callable[[], object], device: str) -> float:
    """Seconds of one run; a GPU is waited for before and after."""
    finish(device)
    began = time.perf_counter()
    method()
    finish(device)
    return time.perf_counter() - began


def finish(device: str) -> None:
    """Wait until a GPU has done all that it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def peak(method: Callable[[], object], device: str) -> tuple[object, float]:
    """What a method returns, and how far memory rose meanwhile, in MiB: of the GPU, or of the process, sampled every 5 ms."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = method()
        return result, (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if not STATM.exists():
        return method(), float("nan")

    def resident() -> int:
        return int(STATM.read_text().split()[1]) * PAGE

    with contextlib.suppress(
        OSError, AttributeError
    ):  # what the allocator keeps of earlier runs would not show as a rise
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
    """The setting with which `run` is fastest, by the better of two runs each, in turn, after a warm-up."""
    run(settings[0])
    twice = [[clock(lambda s=setting: run(s), device) for setting in settings] for _ in range(2)]
    return min(zip(map(min, *twice), settings, strict=True))[1]
