"""Run trainings side by side on a CPU, each in its own process, which ends when its parent does."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

import torch

_parent = 0  # in a worker: the process that started it


def run_side_by_side(
    function: Callable, tasks: Sequence[tuple], workers: int, progress: Callable
) -> None:
    """Call a function for each task, in the given order, in a few processes.

    Args:
        function: A function of a module. Its results are not used.
        tasks: The arguments of each call.
        workers: How many calls run at a time. They share the cores evenly.
        progress: Wraps iterables to show progress, like tqdm.
    """
    workers = min(workers, len(tasks))
    threads = max(1, (os.cpu_count() or 1) // workers)
    spawn = multiprocessing.get_context("spawn")
    setup = {"initializer": _start_worker, "initargs": (os.getpid(), threads)}
    with ProcessPoolExecutor(workers, spawn, **setup) as pool:
        calls = [pool.submit(function, *task) for task in tasks]
        for call in progress(as_completed(calls), total=len(calls), desc="trainings"):
            call.result()


def _start_worker(parent: int, threads: int) -> None:
    global _parent
    _parent = parent
    torch.set_num_threads(threads)


def exit_without_parent() -> None:
    """End this process if it is a worker and its parent has ended, for example by a kill."""
    if _parent and os.getppid() != _parent:
        os._exit(1)
