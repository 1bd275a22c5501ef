"""The compute queue: one thread, and for each lane only the newest request waits.

A lane is a tab and a kind of request, such as the covering of one tab. A new request replaces the
one that waits in its lane, so the queue never grows, however fast a pointer moves.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from zfnet.explorer.errors import Cancelled, Superseded

R = TypeVar("R")
Lane = tuple[str, str]  # the tab, and the kind of request
STOP_SECONDS = 10  # that `stop` waits for a computation
LANES = 64  # the most requests that wait, over all tabs; beyond, the oldest is dropped


@dataclass(eq=False)
class Job:
    """A computation that waits. One that takes seconds is `long`, and lets others run between."""

    function: Callable[[], Any]
    long: bool
    future: Future = field(default_factory=Future)

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self.function())
        except BaseException as error:
            self.future.set_exception(error)


class Worker:
    """One thread that computes for all tabs; the network is used by nothing else."""

    def __init__(self):
        self._waiting: dict[Lane, Job] = {}
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="explorer", daemon=True)
        self._thread.start()

    async def compute(self, lane: Lane, function: Callable[[], R], *, long: bool = False) -> R:
        """Run a function in the thread, and return its result.

        Raises:
            Superseded: If a newer request of the lane came before this one was begun.
        """
        return await asyncio.wrap_future(self.submit(lane, function, long=long))

    def submit(self, lane: Lane, function: Callable[[], R], *, long: bool = False) -> Future[R]:
        """Put a function into its lane, in place of the one that waits there."""
        job = Job(function, long)
        with self._changed:
            if self._stopped:
                raise Cancelled("the server is stopping")
            replaced = [self._waiting.get(lane)]
            self._waiting[lane] = job  # a lane keeps its place in the queue, so that it gets a turn
            if len(self._waiting) > LANES:
                replaced.append(self._waiting.pop(next(iter(self._waiting))))
            self._changed.notify()
        for old in filter(None, replaced):
            if old.future.set_running_or_notify_cancel():
                old.future.set_exception(Superseded("a newer request has replaced this one"))
        return job.future

    def run_waiting(self) -> None:
        """Run what waits, except long jobs. Long jobs call it between their parts."""
        while job := self._take(long=False):
            job.run()

    def progress(self, report: Callable[[int, int], None]) -> Callable:
        """Return a progress bar, such as `zfnet.occlude` takes, that reports (done, total).

        Between two steps it runs the requests that wait. It raises Cancelled once the worker stops;
        `report` may raise it too.
        """

        def bar(steps: Any, total: int = 0, desc: str = "") -> Iterator[Any]:
            for done, step in enumerate(steps):
                report(done, total)
                self.run_waiting()
                if self._stopped:
                    raise Cancelled("the server is stopping")
                yield step
            report(total, total)

        return bar

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def stop(self) -> None:
        """Drop what waits, and end the thread after the step that it computes."""
        with self._changed:
            self._stopped = True
            dropped = list(self._waiting.values())
            self._waiting.clear()
            self._changed.notify()
        for job in dropped:
            job.future.cancel()
        self._thread.join(STOP_SECONDS)

    def _take(self, *, long: bool) -> Job | None:
        with self._changed:
            for lane, job in self._waiting.items():
                if long or not job.long:
                    return self._waiting.pop(lane)
        return None

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
            if job := self._take(long=True):
                job.run()
