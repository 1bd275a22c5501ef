"""Measure the speed of the explorer in a browser: `python -m tests.explorer.benchmark`.

    click to projection   below 150 ms (median, conv5 of ZFNet)
    occluding             10 responses per second or more
    webcam                5 frames per second or more
    page                  usable 2 s after the server has started

The benchmark starts `zfnet explore` and controls it with Playwright. The goals assume two idle
cores. On a busy machine, look at the CPU time of the server, which is printed, too. It is a lower
bound of the response time, and about equal to it on an idle core.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

CLICKS, SECONDS = 40, 5.0
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
# The time from each click to the next update of the unit view.
TIMER = """() => {
    window.touches = [];
    let start = null;
    document.addEventListener("pointerdown", () => { start = performance.now(); }, true);
    new MutationObserver(() => requestAnimationFrame(() => {
        if (start !== null) window.touches.push(performance.now() - start);
        start = null;
    })).observe(document.querySelector("#unit-facts"), { attributes: true });
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="imagenet65k")
    options = parser.parse_args()
    command = [sys.executable, "-m", "zfnet.cli", "explore", "--no-browser", "--port", "0"]
    command += ["--model", options.model]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url_match = re.search(r"http\S+", process.stdout.readline())
        assert url_match

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", *CAMERA]
            )
            browser.new_page().close()  # exclude the start of the browser
            up = time.perf_counter()
            measure(
                browser.new_page(viewport={"width": 1600, "height": 900}), url_match[0], up, process
            )
            browser.close()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def measure(page: Page, url: str, up: float, process: subprocess.Popen) -> None:
    """Print goals and measurements."""
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load average {load:.1f} before the benchmark")
    print(f"{'':24}{'goal':>12}{'measured':>14}{'server CPU':>18}")
    page.goto(url)
    page.wait_for_selector("#unit-facts[data-key]", timeout=120_000)
    report("page usable", "< 2 s", f"{time.perf_counter() - up:.2f} s", "")
    cpu = cpu_seconds(process)
    touch = click_units(page)
    used = 1000 * (cpu_seconds(process) - cpu) / len(touch)
    report(
        "click to projection",
        "< 150 ms",
        f"{statistics.median(touch):.0f} ms",
        f"{used:.0f} ms/click",
    )
    for name, goal, unit, count in (
        ("occluding", "> 10 /s", "responses", cover),
        ("webcam", "> 5 /s", "frames", webcam),
    ):
        cpu, start = cpu_seconds(process), time.perf_counter()
        answers = count(page)
        seconds = time.perf_counter() - start
        used = 1000 * (cpu_seconds(process) - cpu) / max(answers, 1)
        report(name, goal, f"{answers / seconds:.1f} /s", f"{used:.0f} ms/{unit[:-1]}")


def report(name: str, goal: str, measured: str, cpu: str) -> None:
    print(f"{name:24}{goal:>12}{measured:>14}{cpu:>18}", flush=True)


def click_units(page: Page) -> list[float]:
    """Click maps of conv5 at random positions; return the milliseconds to each projection."""
    page.evaluate(TIMER)
    rng = random.Random(0)
    tiles = page.locator("#maps .map canvas")
    for i in range(CLICKS):
        tile = tiles.nth(rng.randrange(14))  # tiles in the visible rows
        box = tile.bounding_box()
        assert box is not None
        place = [box["x"] + box["width"] * rng.random(), box["y"] + box["height"] * rng.random()]
        page.mouse.click(*place)
        wait_for(page, "window.touches.length", i)
    return page.evaluate("window.touches")


def cover(page: Page) -> int:
    """Drag the occluder over the image for some seconds; return the number of updates."""
    page.click("#views [data-value=cover]")
    page.wait_for_selector("#readout[data-answers]")
    box = page.locator("#stage").bounding_box()
    assert box is not None
    rng, before = random.Random(0), int(page.get_attribute("#readout", "data-answers") or 0)
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        page.mouse.move(
            box["x"] + box["width"] * rng.random(), box["y"] + box["height"] * rng.random()
        )
        time.sleep(0.01)
    page.mouse.up()
    return int(page.get_attribute("#readout", "data-answers") or 0) - before


def webcam(page: Page) -> int:
    """Run the webcam with feature maps for some seconds; return the number of frames."""
    page.click("#views [data-value=features]")
    page.evaluate("""() => {
        window.frames_shown = 0;
        new MutationObserver(() => { window.frames_shown += 1; }).observe(document.querySelector("#rate"), { attributes: true });
    }""")
    page.click("#webcam")
    wait_for(page, "window.frames_shown", 0)
    before = page.evaluate("window.frames_shown")
    page.wait_for_timeout(1000 * SECONDS)
    return page.evaluate("window.frames_shown") - before


def wait_for(page: Page, value: str, above: int) -> None:
    """Poll a number of the page; its security policy forbids Playwright's wait_for_function."""
    end = time.monotonic() + 30
    while page.evaluate(value) <= above:
        assert time.monotonic() < end, f"{value} stays at {above}"
        time.sleep(0.005)


def cpu_seconds(process: subprocess.Popen) -> float:
    """Return the CPU seconds of a process and its threads (Linux)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
