"""Measure the explorer's goals in a real browser: `python -m tests.explorer.benchmark`.

    touch to projection   below 150 ms (median, conv5 of ZFNet)
    covering              10 answers per second or more
    webcam                5 frames per second or more
    page                  usable 2 s after the server is up

It starts `zfnet explore` as a user does, and drives it with Playwright. The goals are for two idle
cores. On a shared machine look at the processor time of the server, which it prints too: the wall
time of an answer cannot be shorter, and on an idle core is about as long.
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

TOUCHES, SECONDS = 40, 5.0
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
# Time from each pointer press to the next change of what the page shows for a unit.
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
        found = re.search(r"http\S+", process.stdout.readline())
        assert found

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", *CAMERA]
            )
            browser.new_page().close()  # the browser is open before the page is asked for
            up = time.perf_counter()
            measure(
                browser.new_page(viewport={"width": 1600, "height": 900}), found[0], up, process
            )
            browser.close()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def measure(page: Page, url: str, up: float, process: subprocess.Popen) -> None:
    """Print what each goal asks for, and what was measured."""
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load average {load:.1f} before the benchmark")
    print(f"{'':24}{'goal':>12}{'measured':>14}{'server CPU':>18}")
    page.goto(url)
    page.wait_for_selector("#unit-facts[data-key]", timeout=120_000)
    report("page usable", "< 2 s", f"{time.perf_counter() - up:.2f} s", "")
    cpu = cpu_seconds(process)
    touch = touches(page)
    used = 1000 * (cpu_seconds(process) - cpu) / len(touch)
    report(
        "touch to projection",
        "< 150 ms",
        f"{statistics.median(touch):.0f} ms",
        f"{used:.0f} ms/touch",
    )
    for name, goal, unit, count in (
        ("covering", "> 10 /s", "answers", cover),
        ("webcam", "> 5 /s", "frames", webcam),
    ):
        cpu, start = cpu_seconds(process), time.perf_counter()
        answers = count(page)
        seconds = time.perf_counter() - start
        used = 1000 * (cpu_seconds(process) - cpu) / max(answers, 1)
        report(name, goal, f"{answers / seconds:.1f} /s", f"{used:.0f} ms/{unit[:-1]}")


def report(name: str, goal: str, measured: str, cpu: str) -> None:
    print(f"{name:24}{goal:>12}{measured:>14}{cpu:>18}", flush=True)


def touches(page: Page) -> list[float]:
    """Touch maps of conv5 at random positions, and return the milliseconds to each projection."""
    page.evaluate(TIMER)
    rng = random.Random(0)
    tiles = page.locator("#maps .map canvas")
    for i in range(TOUCHES):
        tile = tiles.nth(rng.randrange(14))  # those of the first rows, inside the window
        box = tile.bounding_box()
        assert box is not None
        place = [box["x"] + box["width"] * rng.random(), box["y"] + box["height"] * rng.random()]
        page.mouse.click(*place)
        wait_for(page, "window.touches.length", i)
    return page.evaluate("window.touches")


def cover(page: Page) -> int:
    """Drag a square over the image for some seconds, and count the answers that the page showed."""
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
    """Run the webcam for some seconds in the view of feature maps, and count the frames."""
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
    """Wait until a number of the page is larger. The page's policy forbids Playwright's own way."""
    end = time.monotonic() + 30
    while page.evaluate(value) <= above:
        assert time.monotonic() < end, f"{value} stays at {above}"
        time.sleep(0.005)


def cpu_seconds(process: subprocess.Popen) -> float:
    """Processor time that a process has used, all threads together (Linux)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
