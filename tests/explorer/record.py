"""Record the animation in the docs: `python -m tests.explorer.record OUT.gif [--atlas DIR]`.

The script controls `zfnet explore` with Playwright. It takes each frame after the page has
responded, so the animation does not show the speed of the explorer.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

WIDTH, HEIGHT = 1320, 870  # window size in pixels
GIF_WIDTH = 840  # pixels
SETTLE = 900  # milliseconds for the response of the page


class Recorder:
    """Screenshots and their durations in milliseconds."""

    def __init__(self, page: Page):
        self.page = page
        self.frames: list[Image.Image] = []
        self.durations: list[int] = []

    def shoot(self, milliseconds: int) -> None:
        self.page.wait_for_timeout(SETTLE)
        with Image.open(io.BytesIO(self.page.screenshot())) as shot:
            size = (GIF_WIDTH, GIF_WIDTH * HEIGHT // WIDTH)
            self.frames.append(shot.convert("RGB").resize(size, Image.Resampling.LANCZOS))
        self.durations.append(milliseconds)

    def save(self, path: Path) -> None:
        """Write a GIF with one palette per frame."""
        first, *others = (frame.quantize(256, kmeans=3) for frame in self.frames)
        first.save(
            path,
            save_all=True,
            append_images=others,
            duration=self.durations,
            loop=0,
            optimize=True,
        )


def record_units(recorder: Recorder) -> None:
    """Click maps of several layers, and change the rules of the deconvnet."""
    page = recorder.page
    recorder.shoot(1500)
    for layer in ("conv1", "conv3", "conv5"):
        page.click(f"#map [data-layer={layer}]")
        page.wait_for_selector(f"#unit-facts[data-key^='{layer}/']")
        recorder.shoot(1200)
    cells = page.locator("#unit-map").bounding_box()
    assert cells is not None
    for i in range(5):
        share = 0.19 + 0.05 * i
        page.mouse.click(cells["x"] + cells["width"] * share, cells["y"] + cells["height"] * 0.42)
        recorder.shoot(500)
    page.click("#apart summary")
    page.check("[data-rule=switches]")
    page.wait_for_selector("#similarity:visible")
    recorder.shoot(2500)
    page.uncheck("[data-rule=switches]")


def record_occlusion(recorder: Recorder) -> None:
    """Move the occluder over the image, and compute an occlusion map."""
    page = recorder.page
    page.click("#views [data-value=cover]")
    stage = page.locator("#stage").bounding_box()
    assert stage is not None
    for i in range(10):
        x, y = 0.2 + 0.06 * i, 0.25 + 0.03 * i
        page.mouse.click(stage["x"] + stage["width"] * x, stage["y"] + stage["height"] * y)
        page.wait_for_selector("#readout:not([data-box=''])")
        recorder.shoot(400)
    page.click("#sweep")
    page.wait_for_selector(".sweeps[data-result]", timeout=300_000)
    recorder.shoot(2500)


def record_comparison(recorder: Recorder) -> None:
    page = recorder.page
    page.click("#views [data-value=compare]")
    page.wait_for_selector("[data-side=right] [data-method]", timeout=300_000)
    recorder.shoot(2500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--atlas", help="an atlas for the neighbors")
    options = parser.parse_args()
    command = [sys.executable, "-m", "zfnet.cli", "explore", "--no-browser", "--port", "0"]
    command += ["--atlas", options.atlas] if options.atlas else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url_match = re.search(r"http\S+", process.stdout.readline())
        assert url_match
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.set_default_timeout(120_000)
            page.goto(url_match[0] + "#image=cat&size=64")
            page.wait_for_selector("#unit-facts[data-key]")
            page.wait_for_selector("[data-sample]")
            recorder = Recorder(page)
            for scene in (record_units, record_occlusion, record_comparison):
                scene(recorder)
            recorder.save(options.out)
            browser.close()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    print(
        f"{options.out}: {sum(recorder.durations) / 1000:.0f} s, {options.out.stat().st_size:,} bytes"
    )


if __name__ == "__main__":
    main()
