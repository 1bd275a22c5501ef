"""The gallery: its entries, numbers and escaping, and its pages in headless Chromium."""

import contextlib
import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image

from reproduce.core.record import write_record
from reproduce.site import gallery, rendering, text
from reproduce.site.gallery import contents
from tests.conftest import ROOT
from tests.reproduce.test_figures import record

HOSTILE = "<img src=x onerror=alert(1)>"
QUOTED = "#?%41\" onmouseover='alert(1)' x=\""
ORDER = [f"fig{n}" for n in range(1, 10)] + [f"tab{n}" for n in range(1, 8)]


def save_record(out, corpus, name, **changes):
    """Save a record with its pictures in `out/<corpus>/<name>/`."""
    saved = record(id=name, **changes)
    write_record(saved, out / corpus / name)
    for file in saved.files:
        Image.new("RGB", (40, 30), "white").save(out / corpus / name / file)


def save_hostile_records(out):
    """Save records with hostile text in every field, for the committed page and for a separate one."""
    for corpus in ("imagenet65k", HOSTILE):
        for word in (HOSTILE, QUOTED):
            save_record(
                out, corpus, word, title=word, claim=word + "x" * 300, note=word, key=word, files=[f"{word}.png", f"2{word}.png"],
                measured={word: {word: word}, "claims": {word: word}, "long" * 40: "x" * 300}, paper={word: {word: word}},
                inputs={word: word, "corpus": word}, environment={"commit": word, "torch": word, "device": word},
            )  # fmt: skip
    save_record(out, "imagenet65k", "fig5", title=HOSTILE, claim=QUOTED)


def markdown(template, entries):
    return rendering.render(template, **gallery._values(entries))


class TagParser(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_every_figure_of_the_paper_is_listed_in_order(tmp_path):
    save_record(tmp_path, "imagenet65k", "tab1")
    save_record(tmp_path, "imagenet65k", "a_lecture")
    save_record(tmp_path, "imagenet65k", "bench_speed")
    (path,) = gallery.write(tmp_path)
    page = path.read_text()
    assert re.findall(r'<article id="(\w+)"', page) == [*ORDER, "a_lecture", "bench_speed"]
    overview = page[page.index("<nav") : page.index("</nav>")]
    assert re.findall(r'<a href="#(\w+)">', overview) == [*ORDER, "a_lecture", "bench_speed"]
    assert re.findall(r'<h2 id="part-(\w+)">', page) == [
        "figures",
        "tables",
        "lectures",
        "benchmarks",
    ]
    assert page.count("No result yet") == 15
    assert '<li class="badge not-run">15 not run</li>' in page
    for name in ORDER:
        assert f"python -m reproduce run {name}" in page
    results = markdown("results.md", gallery.read_entries(tmp_path / "imagenet65k", tmp_path))
    assert re.findall(r"^### (?:(Figure|Table) (\d))?", results, re.MULTILINE)[:16] == [
        ("Figure" if name.startswith("fig") else "Table", name[3:]) for name in ORDER
    ]
    assert results.count("\n**not run**") == 15


@pytest.mark.parametrize(
    ("name", "corpus", "options"),
    [
        ("fig5", "imagenet65k", " --data PATH"), ("fig5", "my-tree", " --data PATH"), ("fig5", "samples", ""), ("fig1", "scenes", ""),
        ("fig4", "imagenet65k", " --model RUN/model.safetensors --data PATH"), ("mnist_pca", "mnist", " --datasets PATH"), ("tab4", "caltech101", " --data IMAGENET --datasets PATH"), ("tab6", "voc2012", " --datasets PATH"),
        ("filters", "imagenet65k", ""), ("mlp_lines", "mnist", ""), ("attributes", "samples", " --data PATH"), ("fig5", "trees@vgg", " --model MODEL --data PATH"), ("fig8", "trees@vgg", " --data PATH"),
    ],
)  # fmt: skip
def test_commands_have_the_options_of_their_corpus(name, corpus, options):
    assert gallery.command(name, corpus) == f"python -m reproduce run {name}{options}"


def test_commands_of_figures_that_have_not_run(tmp_path):
    save_record(tmp_path, "imagenet65k", "fig1")
    save_record(tmp_path, "samples", "fig1")
    committed, samples = (path.read_text() for path in gallery.write(tmp_path))
    for name, options in (
        ("fig6", " --data PATH"),
        ("fig9", " --data IMAGENET --datasets PATH"),
        ("tab6", " --datasets PATH"),
    ):
        assert f">python -m reproduce run {name}{options}<" in committed
    for name, options in (
        ("fig6", " --data PATH"),
        ("fig9", " --data IMAGENET --datasets PATH"),
        ("fig5", ""),
    ):
        assert f">python -m reproduce run {name}{options}<" in samples


def test_results_of_one_figure_are_grouped(tmp_path):
    save_record(tmp_path, "scenes", "fig1", title="Two", verdict="differs")
    save_record(tmp_path, "imagenet65k", "fig1", title="Two", verdict="reproduced")
    save_record(tmp_path, "samples", "fig2")
    committed, samples = (path.read_text() for path in gallery.write(tmp_path))
    assert committed.count("<article") == 16
    assert re.findall(r"<h4[^>]*>On (\w+)</h4>", committed) == ["imagenet65k", "scenes"]
    assert 'src="imagenet65k/fig1/a.png"' in committed
    assert 'src="fig2/a.png"' in samples
    # The badge shows the verdict of the first corpus.
    assert '<li class="badge reproduced">1 reproduced</li>' in committed
    assert '<a href="../index.html#fig1">a committed one</a>' in samples
    assert "../index.html#fig3" not in samples
    assert [
        str(path.relative_to(tmp_path)) for path in gallery.write(tmp_path, only={"samples"})
    ] == ["samples/index.html"]


def test_page_links_to_the_atlas_of_its_corpus(tmp_path):
    save_record(tmp_path, "imagenet65k", "fig1")
    save_record(tmp_path, "samples", "fig1")
    assert not any("atlas/index.html" in path.read_text() for path in gallery.write(tmp_path))
    (tmp_path / "samples" / "atlas").mkdir()
    (tmp_path / "samples" / "atlas" / "index.html").touch()
    committed, samples = (path.read_text() for path in gallery.write(tmp_path))
    assert '<a href="atlas/index.html">The atlas</a>' in samples
    assert "atlas/index.html" not in committed


def test_unreadable_records_are_skipped(tmp_path):
    save_record(tmp_path, "imagenet65k", "fig1")
    for number, content in enumerate(("{", "[]", '{"id": "fig2"}')):
        (tmp_path / "imagenet65k" / f"x{number}").mkdir()
        (tmp_path / "imagenet65k" / f"x{number}" / "result.json").write_text(content)
    (tmp_path / "imagenet65k" / "fig1" / "a.png").write_bytes(b"no picture")
    (path,) = gallery.write(tmp_path)
    assert path.read_text().count("<img") == 0
    assert "1 of 1 pictures missing" in path.read_text()


def test_claims_are_shown_as_marks(tmp_path):
    claims = {
        "a": "holds", "b": "does not hold", "c": "3 of 3", "d": "0 of 1", "e": "2 of 3", "f": "no such class", "g": True, "h": False,
    }  # fmt: skip
    save_record(
        tmp_path,
        "imagenet65k",
        "fig1",
        measured={"claims": claims, "goals": {"i": "reached", "j": "not reached"}, "k": 1},
    )
    (entry,) = gallery.read_entries(tmp_path / "imagenet65k", tmp_path)
    states = "".join(f"{claim}{state[0]}" for claim, _, state in contents.claims(entry.record))
    assert states == "ay" + "bn" + "cy" + "dn" + "ep" + "fu" + "gy" + "hn" + "iy" + "jn"
    assert contents.tables(entry.record) == ({}, {"": [("k", "1", "")]})
    page = gallery.write(tmp_path)[0].read_text()
    assert (
        '<li class="no"><span class="mark" aria-hidden="true">✗</span><span>b: <em>does not hold</em></span></li>'
        in page
    )


def test_numbers_are_paired_with_published_ones():
    saved = record(
        measured={"one": {"a": {"x": 1}, "b": 2}, "alone": 3, "two": {"c": 4}, "last": 5},
        paper={"two": {"c": 6.5, "d": "-"}, "last": 7},
    )
    compared, unpaired = contents.tables(saved)
    assert compared == {
        "": [("alone", "3", ""), ("last", "5", "7")],
        "two": [("c", "4", "6.5"), ("d", "", "-")],
    }
    assert unpaired == {"one": [("a: x", "1", ""), ("b", "2", "")]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1234567, "1,234,567"), (0.123456, "0.123"), (12345.6, "12,346"), (5.01e-7, "5.01 × 10⁻⁷"), (True, "yes"), (None, "–"), ("x", "x"),
        ([0.71125, 0.68777, 0.73433], "0.711 [0.688, 0.734]"), ([86.67, 85.86, 87.09], "86.7 [85.9, 87.1]"),
        ([0.0616, -0.066, 0.179], "0.06 [-0.07, 0.18]"), ([17.2, -0.3, 33.1], "17 [0, 33]"), ([0.4679, 0.0448], "0.468 ± 0.045"), ([83.8, 0.5], "83.8 ± 0.5"),
        ([44.8, 24.6], "44.8, 24.6"), ([38.4, 16.5], "38.4, 16.5"), ([33.1, 38.4, 16.5], "33.1, 38.4, 16.5"), ([1, 2, 3], "1, 2, 3"), ([2450.4, 1866.7, 3472.4], "2,450 [1,867, 3,472]"),
        ([46.0], "46"), (list(range(20)), "20 values"), ([0.5, 0.5, 0.5], "0.5, 0.5, 0.5"),
    ],
)  # fmt: skip
def test_number_formats(value, expected):
    assert text.number(value) == expected


def test_durations():
    assert [text.duration(s) for s in (0.66, 99.94, 150, 7200)] == [
        "0.7 s",
        "99.9 s",
        "2 min",
        "2.0 h",
    ]


def test_hashes_are_abbreviated(tmp_path):
    save_record(
        tmp_path,
        "imagenet65k",
        "fig1",
        inputs={"corpus": "imagenet65k", "checkpoint": "ab" * 32, "voc2012": "absent"},
    )
    page = gallery.write(tmp_path)[0].read_text()
    assert f'checkpoint <code title="{"ab" * 32}">{"ab" * 6}</code>' in page
    assert 'voc2012 <code title="absent">absent</code>' in page


def test_hostile_names_are_escaped(tmp_path):
    save_hostile_records(tmp_path)
    for path in gallery.write(tmp_path):
        page = path.read_text()
        tags = TagParser(page).tags
        assert len([tag for tag, _ in tags if tag == "img"]) == page.count("<figure>") >= 4
        assert {tag for tag, _ in tags}.isdisjoint({"script", "iframe", "object"})
        assert not [
            name for _, attrs in tags for name in attrs if name.startswith("on") or name == "x"
        ]
        assert "&lt;img src=x onerror=alert(1)&gt;" in page
    entries = gallery.read_entries(tmp_path / "imagenet65k", tmp_path)
    # Inline code is not escaped.
    results = re.sub(r"`[^`\n]*`", "", markdown("results.md", entries))
    assert re.search(r"\\<img", results)
    assert not re.search(r"(?<!\\)<img", results)


def test_markdown_tables_are_aligned(tmp_path):
    shutil.copytree(ROOT / "figures" / "imagenet65k", tmp_path / "imagenet65k")
    entries = gallery.read_entries(tmp_path / "imagenet65k", tmp_path)
    for template in ("results.md", "summary.md"):
        tables = re.findall(r"(?:^\|.*\n)+", markdown(template, entries), re.MULTILINE)
        assert tables
        for table in tables:
            assert len({len(line) for line in table.splitlines()}) == 1  # aligned
    assert "| right eye           | 0.4" in markdown("results.md", entries)
    assert (
        text.escape_markdown("a|b\n[c](javascript:d) [0.1, 0.2] `e`")
        == r"a\|b \[c](javascript:d) [0.1, 0.2] \`e\`"
    )


def test_gallery_changes_only_the_marked_part_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "REPOSITORY", tmp_path)
    monkeypatch.setattr(gallery, "FIGURES", tmp_path / "figures")
    (tmp_path / "README.md").write_text(
        f"before\n{gallery.README_MARKS[0]}\nold\n{gallery.README_MARKS[1]}\nafter\n"
    )
    save_record(tmp_path / "figures", "imagenet65k", "fig1")
    assert [path.name for path in gallery.write(tmp_path / "figures")] == [
        "index.html",
        "RESULTS.md",
        "README.md",
    ]
    content = (tmp_path / "README.md").read_text()
    assert content.startswith("before\n")
    assert content.endswith(f"{gallery.README_MARKS[1]}\nafter\n")
    assert "[Figure 1](figures/imagenet65k/fig1)" in content
    assert "old" not in content
    gallery.write(tmp_path / "figures")
    assert (tmp_path / "README.md").read_text() == content


# Tests in a browser, which opens every page from a file.


@pytest.fixture(scope="module", params=["committed", "samples", "hostile", "hostile alone"])
def path(request, tmp_path_factory):
    """Return a page of committed results, one of sample results, or one of two hostile pages."""
    out = tmp_path_factory.mktemp("figures")
    if request.param.startswith("hostile"):
        save_hostile_records(out)
    else:
        for corpus in gallery.COMMITTED if request.param == "committed" else ["imagenet65k"]:
            if (ROOT / "figures" / corpus).is_dir():
                copy = corpus if request.param == "committed" else "samples"
                shutil.copytree(
                    ROOT / "figures" / corpus,
                    out / copy,
                    ignore=shutil.ignore_patterns("*.npz", ".*"),
                )
    return gallery.write(out)[-1 if request.param == "hostile alone" else 0]


@contextlib.contextmanager
def open_page(browser, path, width=1440, scheme="light"):
    """Open a page with all sections and pictures; `page.log` has its requests and errors."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.log = {"requests": [], "errors": []}
    page.on("request", lambda request: page.log["requests"].append(request.url))
    page.on("console", lambda message: page.log["errors"].append(message.text))
    page.on("pageerror", lambda error: page.log["errors"].append(str(error)))
    page.on("dialog", lambda dialog: (page.log["errors"].append(dialog.message), dialog.dismiss()))
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.evaluate(
        "Promise.all([...document.images].map(i => { i.loading = 'eager'; return i.decode().catch(() => 0); }))"
    )
    yield page
    context.close()


def test_no_external_requests_and_every_picture_loads(browser, path):
    with open_page(browser, path) as page:
        page.mouse.wheel(0, 100_000)
        widths = page.evaluate("[...document.images].map(i => i.naturalWidth)")
        assert len(widths) >= 4
        assert min(widths) > 0
        assert [
            url for url in page.log["requests"] if not url.startswith(("file://", "data:"))
        ] == []
        assert len(page.log["requests"]) >= 1 + len(widths)
        assert page.log["errors"] == []


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_the_page_never_scrolls_sideways(browser, path, width):
    with open_page(browser, path, width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        wide = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll'))"
        assert page.evaluate(f"{wide}.map(e => e.outerHTML.slice(0, 80))") == []


def test_every_link_has_a_target(browser, path):
    with open_page(browser, path) as page:
        assert page.evaluate(
            "[...document.querySelectorAll('[id]')].length == new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size"
        )
        links = page.evaluate(
            "[...document.querySelectorAll('a')].map(a => [a.getAttribute('href'), a.href])"
        )
        assert len(links) > 16
        missing = [
            link
            for link, _ in links
            if link.startswith("#")
            and not page.evaluate("id => !!document.getElementById(id)", link[1:])
        ]
        assert missing == []
        files = [urlsplit(address) for link, address in links if not link.startswith("#")]
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
def test_text_has_enough_contrast(browser, path, scheme):
    with open_page(browser, path, scheme=scheme) as page:
        contrasts = page.evaluate(CONTRASTS)
        assert {"P.claim", "LI.badge", "SPAN.badge not-run"} <= {name for name, _, _ in contrasts}
        assert [item for item in contrasts if item[1] < 4.5] == []
        body = next(background for name, _, background in contrasts if name == "H1.")
        assert (body > 0.5) == (scheme == "light")
        cards = page.evaluate(
            "[...document.querySelectorAll('figure a')].map(a => getComputedStyle(a).backgroundColor)"
        )
        # Pictures have a white background in both color schemes.
        assert all(min(map(int, re.findall(r"\d+", card))) > 230 for card in cards)


def test_every_link_is_reachable_by_keyboard(browser, path):
    with open_page(browser, path) as page:
        active_element = (
            "[document.activeElement.className, document.activeElement.getAttribute('href')]"
        )
        page.keyboard.press("Tab")
        assert page.evaluate(active_element) == ["skip", "#results"]
        assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
        overview = page.evaluate(
            "[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href'))"
        )
        assert len(overview) >= 16
        for link in overview:
            page.keyboard.press("Tab")
            assert page.evaluate(active_element)[1] == link
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") not in (
                "none",
                "hidden",
            )
        remaining = page.evaluate(
            "document.querySelectorAll('main a, main summary, main [tabindex]').length"
        )
        assert remaining >= 16
        for _ in range(remaining):
            page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement.closest('article') === [...document.querySelectorAll('article')].pop()"
        )


def test_page_has_landmarks_and_ordered_headings(browser, path):
    with open_page(browser, path) as page:
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
        assert all(level <= previous + 1 for previous, level in itertools.pairwise(levels))
        assert page.evaluate("[...document.images].every(i => i.alt.trim().length > 2)")
        assert page.evaluate("document.documentElement.lang") == "en"


def test_pictures_have_alternative_texts(tmp_path):
    save_record(
        tmp_path,
        "imagenet65k",
        "fig1",
        title="A title",
        claim="A claim.",
        files=["one.png", "two.png"],
    )
    tags = TagParser(gallery.write(tmp_path)[0].read_text()).tags
    assert [attrs["alt"] for tag, attrs in tags if tag == "img"] == [
        "A title (one). A claim.",
        "A title (two). A claim.",
    ]


def test_committed_page_is_up_to_date():
    """Check that figures/index.html contains every committed record."""
    page = (ROOT / "figures" / "index.html").read_text()
    for path in (ROOT / "figures").glob("*/*/result.json"):
        if path.parent.parent.name in gallery.COMMITTED:
            assert json.loads(path.read_text())["key"] in page, (
                f"run `python -m reproduce gallery`: {path.parent.name} is missing or outdated"
            )
