"""The pages of the gallery in headless Chromium, opened from files as a reader opens them."""

import contextlib
import itertools
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image

from reproduce.site import gallery
from reproduce.site.gallery.entries import PAPER_URL
from tests.conftest import ROOT
from tests.reproduce.test_gallery import figure_page, keep, keep_hostile

PAGES = {  # a page of each kind
    "overview": "index.html",
    "lectures": "lectures.html",
    "figure": "imagenet65k/fig7/index.html",
    "table": "caltech101/tab7/index.html",
    "samples": "samples/index.html",
    "hostile": "imagenet65k/*/index.html",
    "hostile alone": "*/index.html",
}


@pytest.fixture(scope="module", params=PAGES)
def path(request, tmp_path_factory):
    """A page of the committed results, of the sample photographs, or of hostile records."""
    out = tmp_path_factory.mktemp("figures")
    if request.param.startswith("hostile"):
        keep_hostile(out)
    else:
        for corpus in ("imagenet65k", "caltech101"):
            copy = "samples" if request.param == "samples" else corpus
            ignored = shutil.ignore_patterns("*.npz", ".*", "atlas", "*.html")
            shutil.copytree(
                ROOT / "figures" / corpus, out / copy, ignore=ignored, dirs_exist_ok=True
            )
    gallery.write(out)
    return sorted(out.glob(PAGES[request.param]))[0]


@contextlib.contextmanager
def opened(browser, path, width=1440, scheme="light"):
    """The page, with every section unfolded and every picture loaded; `page.heard` is what it asked for and complained of."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.heard = {"requests": [], "complaints": []}
    page.on("request", lambda request: page.heard["requests"].append(request.url))
    page.on("console", lambda message: page.heard["complaints"].append(message.text))
    page.on("pageerror", lambda error: page.heard["complaints"].append(str(error)))
    page.on(
        "dialog", lambda dialog: (page.heard["complaints"].append(dialog.message), dialog.dismiss())
    )
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.evaluate(
        "Promise.all([...document.images].map(i => { i.loading = 'eager'; return i.decode().catch(() => 0); }))"
    )
    yield page
    context.close()


def test_no_external_requests_and_every_picture_loads(browser, path):
    with opened(browser, path) as page:
        page.mouse.wheel(0, 100_000)
        widths = page.evaluate("[...document.images].map(i => i.naturalWidth)")
        assert min(widths, default=1) > 0
        assert [
            url for url in page.heard["requests"] if not url.startswith(("file://", "data:"))
        ] == []
        assert len(page.heard["requests"]) >= 2  # the page and its style
        assert page.heard["complaints"] == []


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_the_page_never_scrolls_sideways(browser, path, width):
    with opened(browser, path, width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        wide = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll'))"
        assert page.evaluate(f"{wide}.map(e => e.outerHTML.slice(0, 80))") == []


def test_every_link_has_a_target(browser, path):
    with opened(browser, path) as page:
        assert page.evaluate(
            "[...document.querySelectorAll('[id]')].length == new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size"
        )
        links = page.evaluate(
            "[...document.querySelectorAll('a')].map(a => [a.getAttribute('href'), a.href])"
        )
        assert len(links) > 2
        missing = [
            link
            for link, _ in links
            if link.startswith("#")
            and not page.evaluate("id => !!document.getElementById(id)", link[1:])
        ]
        assert missing == []
        files = [urlsplit(address) for link, address in links if not link.startswith("#")]
        files = [file for file in files if file.geturl() != PAPER_URL]
        assert {file.scheme for file in files} == {"file"}
        assert [file.path for file in files if not Path(unquote(file.path)).exists()] == []


CONTRASTS = """() => {
  const rgb = s => s.match(/[\\d.]+/g).map(Number);
  const light = c => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => {
    const v = c[i] / 255; return sum + w * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); }, 0);
  const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length == 3) return c; if (c[3] > 0) throw Error('a translucent background'); } return [255, 255, 255]; };
  return [...document.querySelectorAll('body, body *')]
    .filter(e => [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim()))
    .map(e => { const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
      return [e.tagName + '.' + e.className, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), b]; }); }"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_is_readable(browser, path, scheme):
    with opened(browser, path, scheme=scheme) as page:
        found = page.evaluate(CONTRASTS)
        assert {"H1.", "A."} <= {name for name, _, _ in found}
        assert [item for item in found if item[1] < 4.5] == []
        body = next(back for name, _, back in found if name == "H1.")
        assert (body > 0.5) == (scheme == "light")
        cards = page.evaluate(
            "[...document.querySelectorAll('figure a')].map(a => getComputedStyle(a).backgroundColor)"
        )
        assert all(
            min(map(int, re.findall(r"\d+", card))) > 230 for card in cards
        )  # pictures are made for white paper


def test_a_wide_picture_scrolls_sideways_on_a_phone(browser, tmp_path):
    keep(tmp_path, "imagenet65k", "fig1", files=["a.png", "wide.png"])
    Image.new("RGB", (2400, 600), "white").save(tmp_path / "imagenet65k" / "fig1" / "wide.png")
    gallery.write(tmp_path)
    size = "[...document.querySelectorAll('figure')].map(f => [f.querySelector('img').width, f.querySelector('.scroll').scrollWidth > f.clientWidth])"
    for width, expected in ((360, 840), (1000, 900)):
        with opened(browser, figure_page(tmp_path), width) as page:
            (small, small_scrolls), (wide, wide_scrolls) = page.evaluate(size)
            assert (small, small_scrolls) == (30, False)
            assert wide >= expected
            assert wide_scrolls == (width == 360)
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_keyboard_reaches_everything(browser, path):
    with opened(browser, path) as page:
        focused = "[document.activeElement.className, document.activeElement.getAttribute('href')]"
        page.keyboard.press("Tab")
        assert page.evaluate(focused) == ["skip", "#results"]
        assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
        reachable = page.evaluate(
            'document.querySelectorAll(\'body a:not(.skip, [tabindex="-1"]), summary, [tabindex="0"]\').length'
        )
        assert reachable >= 3
        for _ in range(reachable):
            page.keyboard.press("Tab")
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") not in (
                "none",
                "hidden",
            )
        assert page.evaluate("!!document.activeElement.closest('footer')")


def test_the_page_has_landmarks_and_headings_in_order(browser, path):
    with opened(browser, path) as page:
        assert (
            page.evaluate(
                "['header', 'nav', 'main', 'footer'].map(n => document.querySelectorAll('body > ' + n).length)"
            )
            == [1] * 4
        )
        levels = page.evaluate(
            "[...document.querySelectorAll('h1, h2, h3, h4, h5')].map(h => +h.tagName[1])"
        )
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
        # The thumbnail of a card repeats the card's link.
        assert page.evaluate(
            "[...document.images].every(i => i.closest('[aria-hidden]') || i.alt.trim().length > 2)"
        )
        assert page.evaluate("document.documentElement.lang") == "en"
