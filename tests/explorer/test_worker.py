"""The queue of computations: new requests replace old ones, and lanes are bounded."""

import threading

import pytest

from zfnet.explorer.errors import Cancelled, Superseded
from zfnet.explorer.worker import LANES, Worker


@pytest.fixture
def worker():
    instance = Worker()
    yield instance
    instance.stop()


@pytest.fixture
def busy(worker):
    """Keep the worker busy until the event is set."""
    started, release = threading.Event(), threading.Event()

    def wait():
        started.set()
        release.wait(20)

    worker.submit(("tab", "busy"), wait)
    assert started.wait(20)
    yield release
    release.set()


def test_newest_request_of_a_lane_replaces_older_ones(worker, busy):
    order = []
    futures = [worker.submit(("tab", "cover"), lambda i=i: order.append(i)) for i in range(1000)]
    other_lane = worker.submit(("other", "cover"), lambda: order.append("other"))
    assert worker.waiting == 2
    busy.set()
    futures[-1].result(20)
    other_lane.result(20)
    assert order == [999, "other"]
    for future in futures[:-1]:
        with pytest.raises(Superseded):
            future.result(0)


def test_number_of_lanes_is_bounded(worker, busy):
    futures = [worker.submit((str(i), "cover"), lambda: None) for i in range(LANES + 50)]
    assert worker.waiting == LANES
    busy.set()
    futures[-1].result(20)
    dropped = [f for f in futures if isinstance(f.exception(20), Superseded)]
    assert dropped == futures[:50]


def test_short_requests_run_between_the_steps_of_a_long_one(worker):
    order, started = [], threading.Event()

    def sweep():
        for step in worker.progress(lambda done, total: None)(range(3), total=3):
            order.append(step)
            if step == 0:
                started.set()
                submitted.wait(20)

    submitted = threading.Event()
    first = worker.submit(("tab", "sweep"), sweep, long=True)
    assert started.wait(20)
    second_sweep = worker.submit(("other", "sweep"), lambda: order.append("second"), long=True)
    touch = worker.submit(("tab", "unit"), lambda: order.append("touch"))
    submitted.set()
    for future in (first, touch, second_sweep):
        future.result(20)
    assert order == [0, "touch", 1, 2, "second"]


def test_error_is_raised_in_its_request_and_the_worker_continues(worker):
    future = worker.submit(("tab", "unit"), lambda: 1 / 0)
    assert isinstance(future.exception(20), ZeroDivisionError)
    assert worker.submit(("tab", "unit"), lambda: 7).result(20) == 7


def test_stop_cancels_a_long_request_and_rejects_new_ones(worker):
    started = threading.Event()

    def sweep():
        for _ in worker.progress(lambda done, total: started.set())(iter(int, 1)):
            pass

    future = worker.submit(("tab", "sweep"), sweep, long=True)
    assert started.wait(20)
    worker.stop()
    assert isinstance(future.exception(20), Cancelled)
    with pytest.raises(Cancelled):
        worker.submit(("tab", "unit"), lambda: None)
