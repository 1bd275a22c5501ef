"""The gallery: its items, numbers and escaping, the documents, and results.csv."""

import re
import shutil
from html.parser import HTMLParser

import pytest
from PIL import Image

from reproduce.core.record import write_record
from reproduce.site import gallery, text
from reproduce.site.gallery import contents, documents, headline
from reproduce.site.gallery.declarations import Declaration
from reproduce.site.gallery.spreadsheet import FIELDS, read_csv, rows, write_csv
from tests.conftest import ROOT
from tests.reproduce.test_figures import record

HOSTILE = "<img src=x onerror=alert(1)>"
QUOTED = "#?%41\" onmouseover='alert(1)' x=\""
ORDER = [f"fig{n}" for n in range(1, 10)] + [f"tab{n}" for n in range(1, 8)]


def keep(out, corpus, name, **changes):
    """A record with its pictures, in `out/<corpus>/<name>/`."""
    kept = record(id=name, **changes)
    write_record(kept, out / corpus / name)
    for file in kept.files:
        Image.new("RGB", (40, 30), "white").save(out / corpus / name / file)


def keep_hostile(out):
    """Records of nothing but hostile names, in every position: on the committed page, and on a page of its own."""
    for corpus in ("imagenet65k", HOSTILE):
        for word in (HOSTILE, QUOTED):
            keep(
                out, corpus, word, title=word, claim=word + "x" * 300, note=word, key=word, files=[f"{word}.png", f"2{word}.png"],
                measured={word: {word: word}, "claims": {word: word}, "long" * 40: "x" * 300}, paper={word: {word: word}},
                inputs={word: word, "corpus": word}, environment={"commit": word, "torch": word, "device": word},
            )  # fmt: skip
    keep(out, "imagenet65k", "fig5", title=HOSTILE, claim=QUOTED)


def figure_page(out, name="fig1"):
    return out / "imagenet65k" / name / "index.html"


def document(out, name="RESULTS.md"):
    return documents.document(name, gallery.committed_entries(out))


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_every_figure_of_the_paper_is_listed_in_order(tmp_path):
    for name in ("tab1", "a_lecture", "bench_speed"):
        keep(tmp_path, "imagenet65k", name)
    (path,) = gallery.write(tmp_path)
    page, lectures = path.read_text(), (tmp_path / "lectures.html").read_text()
    assert re.findall(r'<article id="(\w+)"', page) == ORDER
    assert re.findall(r'<article id="(\w+)"', lectures) == ["a_lecture", "bench_speed"]
    assert re.findall(r'<h2 id="part-(\w+)">', page) == ["figures", "tables"]
    assert re.findall(r'<h2 id="part-(\w+)">', lectures) == ["lectures", "benchmarks"]
    assert page.count("No result yet") == 15
    assert '<li class="badge not-run">15 not run</li>' in page
    for name in ORDER:
        assert name == "tab1" or f"python -m reproduce run {name}" in page
    results = document(tmp_path)
    assert re.findall(r"^### (?:(Figure|Table) (\d))?", results, re.MULTILINE) == [
        ("Figure" if name.startswith("fig") else "Table", name[3:]) for name in ORDER
    ]
    assert results.count("\n**not run**") == 15
    assert re.findall(r"^## (\w+)", document(tmp_path, "LECTURES.md"), re.MULTILINE) == [
        "Lectures",
        "Benchmarks",
    ]


def test_a_page_per_result_with_links_to_its_neighbors(tmp_path):
    for name in ("fig2", "tab1", "a_lecture"):
        keep(tmp_path, "imagenet65k", name)
    gallery.write(tmp_path)
    pages = {
        name: (tmp_path / "imagenet65k" / name / "index.html").read_text()
        for name in ("fig2", "tab1", "a_lecture")
    }
    assert 'rel="prev"' not in pages["fig2"]
    assert '<a rel="next" href="../../imagenet65k/tab1/index.html">' in pages["fig2"]
    assert '<a rel="prev" href="../../imagenet65k/tab1/index.html">' in pages["a_lecture"]
    assert 'href="../../index.html">All results' in pages["tab1"]
    assert 'href="../../lectures.html">All results' in pages["a_lecture"]
    assert 'Figure 2 of <a href="https://arxiv.org/abs/1311.2901">' in pages["fig2"]
    assert "arxiv" not in pages["a_lecture"]


@pytest.mark.parametrize(
    ("name", "corpus", "options"),
    [
        ("fig5", "imagenet65k", " --data PATH"), ("fig5", "my-tree", " --data PATH"), ("fig5", "samples", ""), ("fig1", "scenes", ""),
        ("fig4", "imagenet65k", " --data PATH"), ("mnist_pca", "mnist", " --datasets PATH"), ("tab4", "caltech101", " --data IMAGENET --datasets PATH"), ("tab6", "voc2012", " --datasets PATH"),
        ("filters", "imagenet65k", ""), ("mlp_lines", "mnist", ""), ("attributes", "samples", " --data PATH"), ("fig5", "trees@vgg", " --model MODEL --data PATH"), ("fig8", "trees@vgg", " --data PATH"),
    ],
)  # fmt: skip
def test_the_command_has_the_options_of_its_corpus(name, corpus, options):
    assert gallery.command(name, corpus) == f"python -m reproduce run {name}{options}"


def test_commands_of_figures_that_have_not_run(tmp_path):
    keep(tmp_path, "imagenet65k", "fig1")
    keep(tmp_path, "samples", "fig1")
    ours, samples = (path.read_text() for path in gallery.write(tmp_path))
    for name, options in (
        ("fig6", " --data PATH"),
        ("fig9", " --data IMAGENET --datasets PATH"),
        ("tab6", " --datasets PATH"),
    ):
        assert f">python -m reproduce run {name}{options}<" in ours
    for name, options in (
        ("fig6", " --data PATH"),
        ("fig9", " --data IMAGENET --datasets PATH"),
        ("fig5", ""),
    ):
        assert f">python -m reproduce run {name}{options}<" in samples


def test_results_of_one_figure_share_a_card(tmp_path):
    keep(tmp_path, "scenes", "fig1", verdict="differs", measured={"a": 1})
    keep(tmp_path, "imagenet65k", "fig1", verdict="reproduced", measured={"a": 2})
    keep(tmp_path, "samples", "fig2")
    ours, samples = (path.read_text() for path in gallery.write(tmp_path))
    assert ours.count("<article") == 16
    assert 'src="imagenet65k/fig1/a.png"' in ours
    assert '<a href="scenes/fig1/index.html">On scenes</a>' in ours
    assert 'src="fig2/a.png"' in samples
    # The verdict of a figure is that of its first corpus.
    assert '<li class="badge reproduced">1 reproduced</li>' in ours
    assert '<a href="../index.html#fig1">a committed one</a>' in samples
    assert "../index.html#fig3" not in samples
    assert [
        str(path.relative_to(tmp_path)) for path in gallery.write(tmp_path, only={"samples"})
    ] == ["samples/index.html"]
    ids = {row["id"] for row in read_csv((tmp_path / "results.csv").read_text())}
    assert ids == {"fig1 (imagenet65k)", "fig1 (scenes)"}


def test_a_page_links_to_the_atlas_beside_it(tmp_path):
    keep(tmp_path, "imagenet65k", "fig1")
    keep(tmp_path, "samples", "fig1")
    assert not any("atlas/index.html" in path.read_text() for path in gallery.write(tmp_path))
    (tmp_path / "samples" / "atlas").mkdir()
    (tmp_path / "samples" / "atlas" / "index.html").touch()
    ours, samples = (path.read_text() for path in gallery.write(tmp_path))
    assert '<a href="atlas/index.html">The atlas' in samples
    assert "atlas/index.html" not in ours
    (tmp_path / "imagenet65k" / "atlas").mkdir()
    assert (
        '<a href="imagenet65k/atlas/index.html">The atlas' in gallery.write(tmp_path)[0].read_text()
    )


def test_an_unreadable_record_is_left_out(tmp_path):
    keep(tmp_path, "imagenet65k", "fig1")
    for number, content in enumerate(("{", "[]", '{"id": "fig2"}')):
        (tmp_path / "imagenet65k" / f"x{number}").mkdir()
        (tmp_path / "imagenet65k" / f"x{number}" / "result.json").write_text(content)
    (tmp_path / "imagenet65k" / "fig1" / "a.png").write_bytes(b"no picture")
    (path,) = gallery.write(tmp_path)
    assert path.read_text().count("<img") == 0
    assert "1 of 1 pictures missing" in figure_page(tmp_path).read_text()


def test_claims_are_marked_not_tabled(tmp_path):
    said = {
        "a": "holds", "b": "does not hold", "c": "3 of 3", "d": "0 of 1", "e": "2 of 3", "f": "no such class", "g": True, "h": False,
    }  # fmt: skip
    keep(
        tmp_path,
        "imagenet65k",
        "fig1",
        measured={"claims": said, "goals": {"i": "reached", "j": "not reached"}, "k": 1},
    )
    (entry,) = gallery.read_entries(tmp_path / "imagenet65k", tmp_path)
    states = "".join(f"{claim}{state[0]}" for claim, _, state in contents.claims(entry.record))
    assert states == "ay" + "bn" + "cy" + "dn" + "ep" + "fu" + "gy" + "hn" + "iy" + "jn"
    assert contents.tables(entry.record) == ({}, {"": [("k", "1", "")]})
    gallery.write(tmp_path)
    page = figure_page(tmp_path).read_text()
    assert (
        '<li class="no"><span class="mark" aria-hidden="true">✗</span><span>b: <em>does not hold</em></span></li>'
        in page
    )


def test_numbers_are_grouped_with_published_ones():
    found = record(
        measured={"one": {"a": {"x": 1}, "b": 2}, "alone": 3, "two": {"c": 4}, "last": 5},
        paper={"two": {"c": 6.5, "d": "-"}, "last": 7},
    )
    compared, others = contents.tables(found)
    assert compared == {
        "": [("alone", "3", ""), ("last", "5", "7")],
        "two": [("c", "4", "6.5"), ("d", "", "-")],
    }
    assert others == {"one": [("a: x", "1", ""), ("b", "2", "")]}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1234567, "1,234,567"), (0.123456, "0.123"), (12345.6, "12,346"), (5.01e-7, "5.01 × 10⁻⁷"), (True, "yes"), (None, "–"), ("x", "x"),
        ([0.71125, 0.68777, 0.73433], "0.711 [0.688, 0.734]"), ([86.67, 85.86, 87.09], "86.7 [85.9, 87.1]"),
        ([0.0616, -0.066, 0.179], "0.06 [-0.07, 0.18]"), ([17.2, -0.3, 33.1], "17 [0, 33]"), ([0.4679, 0.0448], "0.468 ± 0.045"), ([83.8, 0.5], "83.8 ± 0.5"),
        ([44.8, 24.6], "44.8, 24.6"), ([38.4, 16.5], "38.4, 16.5"), ([33.1, 38.4, 16.5], "33.1, 38.4, 16.5"), ([1, 2, 3], "1, 2, 3"), ([2450.4, 1866.7, 3472.4], "2,450 [1,867, 3,472]"),
        ([46.0], "46"), (list(range(20)), "20 values"), ([0.5, 0.5, 0.5], "0.5, 0.5, 0.5"),
    ],
)  # fmt: skip
def test_number_formats(value, shown):
    assert text.number(value) == shown


def test_durations():
    assert [text.duration(s) for s in (0.66, 99.94, 150, 7200)] == [
        "0.7 s",
        "99.9 s",
        "2 min",
        "2.0 h",
    ]


def test_hashes_are_short_with_the_full_one_in_the_title(tmp_path):
    keep(
        tmp_path,
        "imagenet65k",
        "fig1",
        inputs={"corpus": "imagenet65k", "checkpoint": "ab" * 32, "voc2012": "absent"},
    )
    gallery.write(tmp_path)
    page = figure_page(tmp_path).read_text()
    assert f'checkpoint <code title="{"ab" * 32}">{"ab" * 6}</code>' in page
    assert 'voc2012 <code title="absent">absent</code>' in page


def test_hostile_names_are_text(tmp_path):
    keep_hostile(tmp_path)
    gallery.write(tmp_path)
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) == 2 * 2 + 5
    for path in pages:
        page = path.read_text()
        tags = Tags(page).found
        if path.parent.name in (HOSTILE, QUOTED) and path.parent.parent.parent == tmp_path:
            assert len([tag for tag, _ in tags if tag == "img"]) == page.count("<figure>") == 2
        assert {tag for tag, _ in tags}.isdisjoint({"script", "iframe", "object"})
        assert not [
            name for _, attrs in tags for name in attrs if name.startswith("on") or name == "x"
        ]
    for name in documents.PARTS:
        text = re.sub(r"`[^`\n]*`", "", document(tmp_path, name))  # code needs no escapes
        assert bool(re.search(r"\\<img", text)) == (name == "LECTURES.md")
        assert not re.search(r"(?<!\\)<img", text)


def test_markdown_tables_are_aligned_and_short(tmp_path):
    shutil.copytree(ROOT / "figures" / "imagenet65k", tmp_path / "imagenet65k")
    entries = gallery.committed_entries(tmp_path)
    texts = [documents.document(name, entries) for name in documents.PARTS]
    for markdown in (*texts, documents.with_headline("".join(documents.MARKS), entries)):
        tables = re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE)
        assert tables
        for table in tables:
            assert len({len(line) for line in table.splitlines()}) == 1  # aligned
            assert len(table.splitlines()) <= 2 + contents.MAX_ROWS
    assert (
        text.escape_markdown("a|b\n[c](javascript:d) [0.1, 0.2] `e`")
        == r"a\|b \[c](javascript:d) [0.1, 0.2] \`e\`"
    )


def test_only_the_marked_part_of_the_readme_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "REPOSITORY", tmp_path)
    monkeypatch.setattr(gallery, "FIGURES", tmp_path / "figures")
    (tmp_path / "README.md").write_text(
        f"before\n{documents.MARKS[0]}\nearlier\n{documents.MARKS[1]}\nafter\n"
    )
    claims = {"it rises": "holds", "it | peaks": "does not hold"}
    keep(
        tmp_path / "figures", "imagenet65k", "fig1", verdict="partial", measured={"claims": claims}
    )
    keep(tmp_path / "figures", "imagenet65k", "fig2", verdict="by construction")
    assert [path.name for path in gallery.write(tmp_path / "figures")] == [
        "index.html",
        "RESULTS.md",
        "LECTURES.md",
        "README.md",
    ]
    first = (tmp_path / "README.md").read_text()
    assert first.startswith("before\n")
    assert first.endswith(f"{documents.MARKS[1]}\nafter\n")
    assert "1 by construction, 1 partial, 14 not run" in first
    assert "- **Figure 1** is partial. This claim does not hold: it \\| peaks.\n" in first
    assert "earlier" not in first
    gallery.write(tmp_path / "figures")
    assert (tmp_path / "README.md").read_text() == first


def test_alternative_texts_describe_pictures(tmp_path):
    keep(
        tmp_path,
        "imagenet65k",
        "fig1",
        title="A title",
        claim="A claim.",
        files=["one.png", "two.png"],
    )
    gallery.write(tmp_path)
    tags = Tags(figure_page(tmp_path).read_text()).found
    assert [attrs["alt"] for tag, attrs in tags if tag == "img"] == [
        "A title (one). A claim.",
        "A title (two). A claim.",
    ]


def test_the_record_states_finding_and_reason():
    claims = {"claims": {"a": "holds", "b": "undecided"}}
    unstated = record(verdict="partial", measured=claims, note="a note")
    assert contents.finding(unstated) == "1 of 2 tested claims holds: a."
    assert contents.reason(unstated) == "This claim is undecided: b."
    stated = record(verdict="partial", measured=claims, finding="It is 3.", reason="It is small.")
    assert (contents.finding(stated), contents.reason(stated)) == ("It is 3.", "It is small.")
    unclaimed = record(verdict="by construction", measured={}, reason="ignored")
    assert (contents.finding(unclaimed), contents.reason(unclaimed)) == (unclaimed.claim, "")
    missing = record(verdict="not run", measured={}, note="No data.")
    assert (contents.finding(missing), contents.reason(missing)) == ("", "No data.")


def test_the_short_table_shows_the_headline_or_what_compares(monkeypatch):
    ours = {"g": {"s": {"a": 1, "b": [2.5, 2.0, 3.0]}}, "n": 7, "claims": {"c": "holds"}}
    both = record(measured=ours, paper={"g": {"s": {"a": 4, "z": 5}}})
    assert contents.short_table(both) == ("g: s", [("a", "1", "4"), ("b", "2.5 [2.0, 3.0]", "")])
    assert contents.short_table(record(measured=ours, paper={})) == (
        "",
        [("g: s: b", "2.5 [2.0, 3.0]", "")],
    )
    many = record(measured={f"n{i}": i for i in range(20)}, paper={})
    assert [row[0] for row in contents.short_table(many)[1]] == [f"n{i}" for i in range(8)]
    assert contents.short_table(record(measured={}, paper={"p": 1})) == ("", [("p", "", "1")])
    assert contents.short_table(record(measured={}, paper={})) == ("", [])
    declared = Declaration(both.id, "s.py", "T", (), headline=("n", "missing", "g: s: a"))
    monkeypatch.setattr(contents, "declarations", lambda: {both.id: declared})
    assert contents.short_table(both) == ("", [("n", "7", ""), ("g: s: a", "1", "4")])


def test_the_cover_is_the_declared_picture_or_the_first(tmp_path, monkeypatch):
    keep(tmp_path, "imagenet65k", "fig1", files=["a.png", "b.png"])
    (entry,) = gallery.committed_entries(tmp_path)
    assert contents.cover(entry).name == "a.png"
    declared = Declaration("fig1", "s.py", "T", (), cover="b.png")
    monkeypatch.setattr(contents, "declarations", lambda: {"fig1": declared})
    assert contents.cover(entry).name == "b.png"


def test_results_csv_holds_every_measured_number():
    """Values rebuilt from the rows equal those of the records."""
    entries = gallery.committed_entries(ROOT / "figures")
    by_quantity = {(row["id"], row["quantity"]): row for row in read_csv(write_csv(entries))}
    assert len(by_quantity) == len(rows(entries)) > 2000
    checked = 0
    for entry in entries:
        about = {"scale": entry.record.scale, "verdict": entry.record.verdict}
        for path, value in contents.flatten(entry.record.measured).items():
            name = ": ".join(path)
            row = by_quantity.get((entry.record.id, name))
            if text.is_interval(value):
                cells = [row["value"], row["low"], row["high"]]
            elif text.is_deviation(value):
                deviation = by_quantity[entry.record.id, f"{name}, standard deviation"]
                cells = [row["value"], deviation["value"]]
            elif isinstance(value, list):
                keys = [(entry.record.id, f"{name} [{i}]") for i in range(len(value))]
                cells = [by_quantity[key]["value"] for key in keys]
            else:
                cells, value = [row["value"]], [value]
            for cell, number in zip(cells, value, strict=True):
                parsed = float(cell) if isinstance(number, float) else cell
                expected = (
                    "" if number is None else number if isinstance(number, float) else str(number)
                )
                assert parsed == expected, (entry.record.id, name)
            assert row is None or about.items() <= row.items()
            checked += 1
    assert checked > 1000
    published = by_quantity["tab7", "caltech101: SVM: layer 5"]
    assert (published["value"], published["paper"]) == ("76.71", "86.2")
    assert tuple(published) == FIELDS


def test_the_headline_table_has_all_rows():
    records = [entry.record for entry in gallery.committed_entries(ROOT / "figures")]
    table = headline.rows(records)
    assert len(table) == 7
    words = "top-1 accuracy|layer 7|layer 5|Table 7|ZFNet over AlexNet|occlusion|projections"
    for word, (name, ours, paper) in zip(words.split("|"), table, strict=True):
        assert word in name
        assert ours
        assert bool(paper) == (word not in ("layer 5", "occlusion", "projections"))
    assert table[0][2] == "61.6"
    assert table[4][2] == "2.1"
    assert headline.rows([]) == []


# What is committed.


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The pages of copies of the committed records."""
    out = tmp_path_factory.mktemp("figures")
    for corpus in gallery.COMMITTED:
        if (ROOT / "figures" / corpus).is_dir():
            copied = shutil.ignore_patterns("*.npz", ".*", "*.html", "sheets", "demos", "data")
            shutil.copytree(ROOT / "figures" / corpus, out / corpus, ignore=copied)
    gallery.write(out)
    return out


def test_committed_pages_equal_the_generated(written):
    names = [path.relative_to(written) for path in written.rglob("*.html")]
    names = [name for name in names if "atlas" not in name.parts]
    assert len(names) > 50
    for name in [*names, "gallery.css", "results.csv"]:
        assert (ROOT / "figures" / name).read_text("utf-8") == (written / name).read_text(
            "utf-8"
        ), f"run `python -m reproduce gallery`: figures/{name} differs"


def test_committed_documents_equal_the_generated(written):
    entries = gallery.committed_entries(written)
    readme = (ROOT / "README.md").read_text("utf-8")
    assert documents.with_headline(readme, entries) == readme
    for name in documents.PARTS:
        committed = (ROOT / name).read_text("utf-8")
        assert committed == documents.document(name, entries), f"{name}: run reproduce gallery"
        assert len(committed.encode()) <= 30_000


def test_links_of_the_documents_exist(written):
    for name in documents.PARTS:
        links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text("utf-8"))
        missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
        assert len(links) > 40
        assert missing == []


def test_no_committed_record_is_from_a_dirty_tree():
    """Records from before versions are older than this rule."""
    for entry in gallery.committed_entries(ROOT / "figures"):
        commit = entry.environment["commit"]
        assert not entry.record.version or not commit.endswith("-dirty"), entry.record.id
