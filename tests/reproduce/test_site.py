"""The site to publish: its links, what it holds, and the folders that it replaces."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

from reproduce.site import publish
from reproduce.site.publish import write_site
from tests.conftest import ROOT


class Links(HTMLParser):
    """The addresses in a page, and the ids that it has."""

    def __init__(self, page):
        super().__init__()
        self.addresses, self.ids = [], set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids |= {attributes.get("id"), attributes.get("name") if tag == "a" else None}
        self.addresses += [value for key in ("href", "src") if (value := attributes.get(key))]


def target(page, address):
    """The file that an address on a page leads to."""
    path = page.parent / unquote(address) if address else page
    return path / "index.html" if path.is_dir() else path


def dead_links(site):
    """The relative links of all pages without a file, or without the part that they name."""
    pages = {page.resolve(): Links(page.read_text("utf-8")) for page in site.rglob("*.html")}
    dead, checked = [], 0
    for page, links in pages.items():
        if page.name == "404.html":  # its addresses begin at the root of the server
            continue
        for link in links.addresses:
            if urlsplit(link).scheme or link.startswith("//"):
                continue
            address, fragment = urldefrag(link)
            file = target(page, address).resolve()
            named = pages[file].ids if file in pages else {fragment}
            checked += 1
            if not file.is_file() or (
                fragment and fragment[0] not in "/_" and fragment not in named
            ):
                dead.append((page.relative_to(site.resolve()).as_posix(), link))
    return dead, checked


def test_the_gallery_of_the_site_has_no_dead_link(tmp_path):
    site = tmp_path / "site"
    assert write_site(site, documents=False) == site / "figures" / "index.html"
    (site / "index.html").touch()  # the documents, which another test builds
    dead, checked = dead_links(site)
    assert dead == []
    assert checked > 500
    assert not list(site.rglob("*.npz"))
    committed = ROOT / "figures" / "imagenet65k"
    for path in committed.glob("*/result.json"):
        assert (site / "figures" / path.relative_to(ROOT / "figures")).is_file()


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#x">b</a> <a href="#here">c</a> <i id="here">')
    assert dead_links(tmp_path) == ([("a.html", "b.html#x")], 2)
    (tmp_path / "b.html").write_text('<a id="y">y</a>')
    assert dead_links(tmp_path) == ([("a.html", "b.html#x")], 2)
    (tmp_path / "b.html").write_text('<a id="x" href="https://example.org">x</a>')
    assert dead_links(tmp_path) == ([], 2)


def test_the_atlas_is_published_with_the_gallery(tmp_path, monkeypatch):
    figures = tmp_path / "figures"
    monkeypatch.setattr(publish, "FIGURES", figures)
    for corpus in ("samples", "imagenet65k"):  # the committed atlas replaces that of the samples
        (figures / corpus / "atlas").mkdir(parents=True)
        (figures / corpus / "atlas" / "index.html").write_text(corpus)
        write_site(tmp_path / "site", documents=False)
        (tmp_path / "site" / publish.DOCUMENTS).touch()
        (atlas,) = (tmp_path / "site").rglob("atlas/index.html")
        assert atlas.read_text() == corpus
        overview = (tmp_path / "site" / "figures" / "index.html").read_text()
        assert f'href="{corpus}/atlas/index.html"' in overview
        assert '<a href="../index.html">Documentation</a>' in overview


def test_other_folders_are_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="name a new folder"):
        write_site(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_the_whole_site_has_no_dead_link(tmp_path):
    pytest.importorskip("mkdocs", reason="needs the extra: pip install 'zfnet-deconvnet[docs]'")
    site = tmp_path / "site"
    assert write_site(site) == site / "index.html"
    assert write_site(site) == site / "index.html"  # in place of the earlier one
    dead, checked = dead_links(site)
    assert dead == []
    assert checked > 1000
    home = (site / "index.html").read_text("utf-8")
    assert 'href="figures/index.html"' in home
    assert (Path(site) / "course" / "index.html").is_file()
