"""Measure the time and peak memory of methods, which alternate after a warm-up."""

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
    """Time and memory of a method.

    Attributes:
        seconds: Seconds of each repetition.
        result: The return value of the warm-up.
        memory: Peak memory in MiB; NaN if it cannot be measured.
    """

    seconds: list[float]
    result: Any
    memory: float

    def summary(self) -> list[float]:
        """Return [median, minimum, maximum] seconds."""
        return spread(self.seconds)


def spread(values: list[float]) -> list[float]:
    """Return [median, minimum, maximum]."""
    return [statistics.median(values), min(values), max(values)]


def race(methods: dict[Any, Callable[[], object]], repeats: int, device: str) -> dict[Any, Timing]:
    """Warm up each method and measure its memory; then run all in turn, `repeats` times."""
    warmup = {name: peak(method, device) for name, method in methods.items()}
    seconds: dict[Any, list[float]] = {name: [] for name in methods}
    for _ in range(repeats):
        for name, method in methods.items():
            seconds[name].append(clock(method, device))
    return {name: Timing(seconds[name], *warmup[name]) for name in methods}


def clock(method: Callable[[], object], device: str) -> float:
    """Return the seconds of one run; a GPU is synchronized before and after."""
    finish(device)
    start = time.perf_counter()
    method()
    finish(device)
    return time.perf_counter() - start


def finish(device: str) -> None:
    """Wait for the GPU to finish."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def peak(method: Callable[[], object], device: str) -> tuple[object, float]:
    """Return the result of a method and the increase in GPU or (sampled) process memory, in MiB."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        baseline = torch.cuda.memory_allocated(device)
        result = method()
        return result, (torch.cuda.max_memory_allocated(device) - baseline) / 2**20
    if not STATM.exists():
        return method(), float("nan")

    def resident() -> int:
        return int(STATM.read_text().split()[1]) * PAGE

    # Return freed memory to the system; reusing it would hide an increase.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    stop, baseline = threading.Event(), resident()
    peak_memory = [baseline]

    def watch() -> None:
        while not stop.wait(0.005):
            peak_memory[0] = max(peak_memory[0], resident())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        result = method()
    finally:
        peak_memory[0] = max(peak_memory[0], resident())
        stop.set()
        thread.join()
    return result, (peak_memory[0] - baseline) / 2**20


def best(settings: list[int], run: Callable[[int], object], device: str) -> int:
    """Return the setting with the lowest time, the better of two runs after a warm-up."""
    run(settings[0])
    rounds = [[clock(lambda s=setting: run(s), device) for setting in settings] for _ in range(2)]
    return min(zip(map(min, *rounds), settings, strict=True))[1]
