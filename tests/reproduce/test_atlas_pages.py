"""The pages of the atlas and of `look` in headless Chromium, from files and from a server."""

import contextlib
import functools
import http.server
import re
import shutil
import threading

import pytest

import zfnet
from reproduce.core.context import Context
from reproduce.site import atlas
from reproduce.site.atlas import files
from reproduce.site.atlas.look import look
from tests.conftest import ROOT
from tests.reproduce.conftest import CLASSES, HOSTILE
from tests.reproduce.test_gallery_pages import CONTRASTS

ROUTES = (
    "",
    "conv5",
    "conv5?class=0",
    "conv5?class=2",
    "conv1?sort=sparsity",
    "conv5/3",
    "conv1/0",
    "conv5/2",
    "classes",
    "class/0",
    "class/2",
    "images",
    "image/0",
)


@pytest.fixture(scope="module")
def site_of(atlas_run, small_atlas_settings):
    """Addresses: of the atlas, and of a look at a photograph with a hostile name."""
    photo = atlas_run / f"{HOSTILE}.png"
    zfnet.photograph("cat").save(photo)
    look(
        zfnet.load(atlas_run / "small.safetensors"),
        HOSTILE,
        photo,
        atlas_run / "look",
        atlas_run / "atlas",
    )
    return {name: (atlas_run / name).as_uri() for name in ("atlas", "look")}


@contextlib.contextmanager
def opened(browser, address, route="", width=1440, scheme="light", touch=False):
    """A page; `page.heard` is what it asked for and complained of, and `page.go(route)` leads to another address in it."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=touch
    )
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.heard = {"requests": [], "complaints": []}
    page.on("request", lambda request: page.heard["requests"].append(request.url))
    page.on("console", lambda message: page.heard["complaints"].append(message.text))
    page.on("pageerror", lambda error: page.heard["complaints"].append(str(error)))
    page.on(
        "dialog", lambda dialog: (page.heard["complaints"].append(dialog.message), dialog.dismiss())
    )

    def go(route):
        if page.evaluate("location.hash") == f"#/{route}":
            return
        page.evaluate(
            "route => { delete document.getElementById('view').dataset.route; location.hash = `#/${route}`; }",
            route,
        )
        arrived(page)

    page.go = go
    page.goto(f"{address}/index.html#/{route}")
    arrived(page)
    yield page
    context.close()


def arrived(page, route=None):
    if route is not None:
        page.wait_for_function(
            "route => document.getElementById('view').dataset.route === route", arg=route
        )
    page.wait_for_selector("main[data-route]")


def heading(page):
    return page.text_content("main h1")


def test_every_route_draws_its_page(browser, atlas_run, site_of):
    headings = {
        "": "What every feature of a network looks for", "conv5": "conv5: 9 features", "conv5?class=0": f"conv5: which features respond to {HOSTILE}?",
        "conv1?sort=sparsity": "conv1: 6 features", "conv5/3": "conv5 feature 3", "conv1/0": "conv1 feature 0", "conv5/2": "conv5 feature 2",
        "classes": "3 classes", "class/0": HOSTILE, "images": "Demonstration images",
    }  # fmt: skip
    address = site_of["atlas"]
    with opened(browser, address) as page:
        for route in ROUTES:
            page.go(route)
            assert heading(page) == headings.get(route, heading(page))
            assert page.title().startswith(heading(page))
            assert len(page.query_selector_all("main .explanation")) >= 1
            for source in page.query_selector_all("main .explanation code"):
                assert (ROOT / source.text_content()).is_file()
        for route in (
            "conv9",
            "conv5/99",
            "conv5/x",
            "class/77",
            "image/44",
            "nowhere/1",
            "constructor",
        ):
            page.go(route)
            assert heading(page) == "Page not found"
        for route in (
            "conv5?sort=constructor",
            "conv5?sort=class",
            "conv5?class=length",
            "conv5?class=99",
        ):  # typed by hand
            page.go(route)
            assert heading(page) == "conv5: 9 features"
        assert page.heard["complaints"] == []
        assert [
            url for url in page.heard["requests"] if not url.startswith((address, "data:"))
        ] == []
        assert len(page.heard["requests"]) > 15
    with opened(browser, address, "conv4/5") as page:  # an address in a lecture
        assert heading(page) == "conv4 feature 5"


def test_the_map_of_the_network_leads_to_its_layers(browser, atlas_run, site_of):
    with opened(browser, site_of["atlas"]) as page:
        names = page.eval_on_selector_all("#map b", "all => all.map(b => b.textContent)")
        assert names == ["input", "conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
        page.click("#map a:has-text('conv3')")
        arrived(page, "conv3")
        assert page.get_attribute("#map [aria-current]", "data-route") == "conv3"
        page.click("#map a:has-text('fc8')")
        arrived(page, "classes")
        assert page.query_selector("#map a:has-text('fc6')") is None
        assert "110 × 110" in page.text_content("#map a:has-text('conv1')")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def test_it_works_from_a_web_server(browser, atlas_run, site_of):
    handler = functools.partial(Quiet, directory=str(atlas_run / "atlas"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with opened(browser, address, "conv5/3") as page:
            assert heading(page) == "conv5 feature 3"
            page.go("image/0")
            assert page.heard["complaints"] == []
            assert [
                url for url in page.heard["requests"] if not url.startswith((address, "data:"))
            ] == []
        server.shutdown()


def test_the_search_sorts_features_by_a_class(browser, atlas_run, site_of):
    data = files.read(atlas_run / "atlas", "conv5")
    with opened(browser, site_of["atlas"]) as page:
        page.fill("input[type=search]", "afghan hounds")
        page.press("input[type=search]", "Enter")
        arrived(page, "conv5")
        assert heading(page) == "conv5: which features respond to Afghan hound?"
        shown = page.eval_on_selector_all(
            "main .grid a",
            "all => all.map(a => [a.getAttribute('href'), a.querySelector('small').textContent])",
        )
        lifts = [float(label.removeprefix("× ")) for _, label in shown]
        assert lifts == sorted(lifts, reverse=True)
        assert lifts[0] > lifts[-1]
        first = int(shown[0][0].split("/")[-1])
        likes = {kind: lift for kind, lift, _ in data["features"][first]["classes"]}
        assert lifts[0] == pytest.approx(likes[1], rel=0.02)  # stored in 8 bits
        page.fill("input[type=search]", "zebra")
        assert 'No class matches "zebra"' in page.text_content(".find ul")
        page.click("#map a:has-text('conv4')")  # the question goes with the reader
        arrived(page, "conv4")
        assert heading(page) == "conv4: which features respond to Afghan hound?"


@pytest.mark.parametrize("address", ["conv5/3", "conv5 3", "CONV5 3"])
def test_the_search_jumps_to_a_feature(browser, atlas_run, site_of, address):
    with opened(browser, site_of["atlas"]) as page:
        page.fill("input[type=search]", address)
        page.press("input[type=search]", "Enter")
        arrived(page, "conv5/3")
        assert heading(page) == "conv5 feature 3"
        page.go("conv4")
        page.fill("input[type=search]", "conv5/900")
        assert "conv5 has no feature 900 in this atlas; available: 0 to 8" in page.text_content(
            ".find ul"
        )


def test_the_grid_can_be_sorted(browser, atlas_run, site_of):
    features = files.read(atlas_run / "atlas", "conv4")["features"]
    with opened(browser, site_of["atlas"], "conv4") as page:

        def order():
            return page.eval_on_selector_all(
                "main .grid a", "all => all.map(a => +a.getAttribute('href').split('/')[2])"
            )

        assert order() == list(range(8))
        for sort, expected in (
            ("sparsity", sorted(range(8), key=lambda c: -features[c]["zero"])),
            ("selectivity", sorted(range(8), key=lambda c: -features[c]["selectivity"])),
            ("similarity", files.read(atlas_run / "atlas", "conv4")["order"]),
        ):
            page.select_option("select", sort)
            page.wait_for_function("sort => location.hash.includes(sort)", arg=sort)
            page.wait_for_function(
                "sort => document.querySelector('main select').value === sort && !document.querySelector('main .explanation').textContent.endsWith('. ')",
                arg=sort,
            )
            page.wait_for_timeout(50)
            assert order() == expected


def test_classes_without_images_are_neither_best_nor_worst(browser, atlas_run, tmp_path):
    shutil.copytree(atlas_run / "atlas", tmp_path / "atlas")
    index, data = (files.read(atlas_run / "atlas", name) for name in ("index", "classes"))
    data["classes"][1] |= {"images": 0, "correct": 0}
    data["classes"][0] |= {"correct": 1}
    data["classes"][2] |= {"correct": 2}
    files.save(tmp_path / "atlas", "classes", data)
    files.save(tmp_path / "atlas", "index", index | {"classes": ["class 10", "class 9", "class 1"]})
    with opened(browser, (tmp_path / "atlas").as_uri(), "classes") as page:
        for order, expected in (("name", "1 9 10"), ("best", "1 10 9"), ("worst", "10 1 9")):
            page.click(f"button[data-value={order}]")
            shown = page.eval_on_selector_all(
                "main .list a", "all => all.map(a => a.textContent.slice(6)).join(' ')"
            )
            assert shown == expected, order


def test_arrow_keys_lead_between_features_and_layers(browser, atlas_run, site_of):
    with opened(browser, site_of["atlas"], "conv5/3") as page:
        for key, route in (
            ("ArrowRight", "conv5/4"), ("ArrowLeft", "conv5/3"), ("ArrowDown", "conv4/3"), ("ArrowUp", "conv5/3"),
        ):  # fmt: skip
            page.keyboard.press(key)
            arrived(page, route)
        page.go("conv5/0")
        page.keyboard.press("ArrowLeft")  # there is none before it
        page.keyboard.press("ArrowUp")
        page.wait_for_timeout(50)
        assert page.evaluate("location.hash") == "#/conv5/0"
        page.go("conv5")
        page.keyboard.press("ArrowLeft")
        arrived(page, "conv4")
        page.focus("input[type=search]")
        page.keyboard.press("ArrowLeft")  # belongs to the text
        page.wait_for_timeout(50)
        assert page.evaluate("location.hash") == "#/conv4"


def test_patches_and_projections_can_be_switched(browser, atlas_run, site_of):
    with opened(browser, site_of["atlas"], "conv5/3") as page:

        def shown():
            return page.eval_on_selector_all(
                "figure[data-kind]",
                "all => all.filter(f => f.offsetParent).map(f => f.dataset.kind)",
            )

        assert shown() == ["patches", "projections"]
        page.keyboard.press("p")
        assert shown() == ["patches"]
        page.keyboard.press("p")
        assert shown() == ["projections"]
        page.keyboard.press("ArrowRight")
        arrived(page, "conv5/4")
        assert shown() == ["projections"]  # as the reader chose
        page.click("button[data-value=both]")
        assert shown() == ["patches", "projections"]
        count = len(files.read(atlas_run / "atlas", "conv5")["features"][4]["value"])
        assert len(page.query_selector_all("[data-kind=patches] button.tile")) == count
        page.focus("[data-kind=patches] button.tile:nth-child(2)")
        assert page.text_content(".selection").startswith("2. ")
        sheets = page.eval_on_selector_all(
            "button.tile", "all => all.map(t => getComputedStyle(t).backgroundImage)"
        )
        assert all(
            re.search(r"sheets/conv5-(patches|projections)-0\.webp", sheet) for sheet in sheets
        )
        page.go("conv5/2")
        assert "dead" in page.text_content("main .large")


def readout(page):
    return page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.readout dd')].map(d => [d.dataset.id, d.textContent]))"
    )


def check(page, data, r, c):
    told = readout(page)
    assert (
        told["occluder"]
        == f"row {r + 1} of {len(data['rows'])}, column {c + 1} of {len(data['columns'])}"
    )
    assert float(re.match(r"[\d.]+", told["activation"])[0]) == pytest.approx(
        data["activation"][r][c], rel=1e-3
    )
    assert float(told["logit"]) == pytest.approx(data["logit"][r][c], rel=1e-3)
    assert float(told["probability"].removesuffix(" %")) == pytest.approx(
        100 * data["probability"][r][c], abs=0.51
    )
    assert told["label"] == CLASSES[data["label"][r][c]]
    box = page.evaluate("""() => { const s = document.querySelector('.stage').getBoundingClientRect(), o = document.querySelector('.occluder').getBoundingClientRect();
      return [o.top - s.top, o.bottom - s.top, o.left - s.left, o.right - s.left].map(v => v / s.width); }""")
    assert box == pytest.approx(
        [v / data["side"] for v in (*data["rows"][r], *data["columns"][c])], abs=0.01
    )


def test_the_occluder_shows_the_recorded_numbers(browser, atlas_run, site_of):
    data = files.read(atlas_run / "atlas", "image0")
    with opened(browser, site_of["atlas"], "image/0") as page:
        assert readout(page)["occluder"] == "none"
        assert float(readout(page)["logit"]) == pytest.approx(data["baseline"]["logit"], rel=1e-3)
        stage = page.query_selector(".stage").bounding_box()
        for r, c in (
            (0, 0),
            (7, 9),
            (len(data["rows"]) - 1, 4),
        ):  # the pointer in the middle of the occluder's place
            y, x = (
                (edges[0] + edges[1]) / 2 / data["side"]
                for edges in (data["rows"][r], data["columns"][c])
            )
            page.mouse.move(stage["x"] + x * stage["width"], stage["y"] + y * stage["height"])
            check(page, data, r, c)
        page.mouse.move(5, 5)
        assert readout(page)["occluder"] == "none"
        page.focus(".stage")
        for key, r, c in (
            ("ArrowDown", 6, 5),
            ("ArrowRight", 6, 6),
            ("ArrowUp", 5, 6),
            ("ArrowLeft", 5, 5),
        ):  # from the middle
            page.keyboard.press(key)
            check(page, data, r, c)
        assert page.evaluate("location.hash") == "#/image/0"
        page.keyboard.press("Escape")
        assert readout(page)["occluder"] == "none"


def test_a_position_of_a_map_shows_its_projection(browser, atlas_run, site_of):
    data = files.read(atlas_run / "atlas", "image0")
    field = data["field"]
    with opened(browser, site_of["atlas"], "image/0") as page:
        assert len(page.query_selector_all("figure[data-map]")) == 4
        values = data["maps"][1]["values"]
        cells = [(r, c) for r in range(13) for c in range(13)]
        excited, silent = (
            next((rc for rc in cells if (values[rc[0]][rc[1]] > 0) == on), None)
            for on in (True, False)
        )
        page.locator("figure[data-map='1'] .cell").scroll_into_view_if_needed()
        frame = page.query_selector("figure[data-map='1'] .cell").bounding_box()
        for r, c in filter(None, (excited, silent)):
            page.mouse.click(
                frame["x"] + (c + 0.5) / 13 * frame["width"],
                frame["y"] + (r + 0.5) / 13 * frame["height"],
            )
            told = page.text_content(".lab .selection")
            assert told.startswith(f"map {data['maps'][1]['channel']}, row {r}, column {c}: ")
            assert ("silent" in told) == (values[r][c] <= 0)
            style = page.evaluate(
                "(({ top, left, width, backgroundImage, backgroundPosition, visibility }) => ({ top, left, width, backgroundImage, backgroundPosition, visibility }))(document.querySelector('.stage .tile').style)"
            )
            assert float(style["top"][:-1]) == pytest.approx(
                100 * (field["offset"] + field["stride"] * r) / data["side"], rel=1e-3
            )
            assert float(style["width"][:-1]) == pytest.approx(
                100 * field["size"] / data["side"], rel=1e-3
            )
            assert "demos/0-map1.webp" in style["backgroundImage"]
            x, y = (
                float(v.removesuffix("%").removesuffix("px"))
                for v in style["backgroundPosition"].split()
            )
            assert (x, y) == pytest.approx((100 * c / 12, 100 * r / 12), rel=1e-3)
            assert (style["visibility"] == "hidden") == (values[r][c] <= 0)
        page.focus("figure[data-map='2'] .cell")
        page.keyboard.press("ArrowDown")
        assert page.text_content(".lab .selection").startswith(
            f"map {data['maps'][2]['channel']}, row 7, column 6"
        )


def test_the_occluder_stays_after_a_tap(browser, atlas_run, site_of):
    data = files.read(atlas_run / "atlas", "image0")
    with opened(browser, site_of["atlas"], "image/0", width=360, touch=True) as page:
        stage = page.query_selector(".stage").bounding_box()
        y, x = (
            (edges[3][0] + edges[3][1]) / 2 / data["side"]
            for edges in (data["rows"], data["columns"])
        )
        page.touchscreen.tap(stage["x"] + x * stage["width"], stage["y"] + y * stage["height"])
        page.wait_for_timeout(50)
        check(page, data, 3, 3)
        how = "[...document.querySelectorAll('.stage')].map(e => getComputedStyle(e).touchAction)"
        assert page.evaluate(how) == [
            "none",
            "auto",
            "auto",
        ]  # a finger on the still pictures scrolls


@pytest.mark.parametrize("width", [768, 1440])
def test_the_numbers_are_visible_beside_the_image(browser, site_of, width):
    with opened(browser, site_of["atlas"], "image/0", width=width) as page:
        stage, told = (page.query_selector(name).bounding_box() for name in (".stage", ".readout"))
        assert told["y"] + told["height"] < stage["y"] + stage["height"] < 900


def test_hostile_names_are_text(browser, atlas_run, site_of):
    for folder, routes in (("atlas", ROUTES), ("look", ("", "conv3"))):
        with opened(browser, site_of[folder]) as page:
            for route in routes:
                page.go(route)
                assert page.query_selector("img[src=x], [onerror], [onmouseover]") is None
            assert page.heard["complaints"] == []
    with opened(browser, site_of["atlas"], "class/0") as page:
        assert heading(page) == HOSTILE
        page.go(f"<img src=x onerror=alert(1)>/%41?class={HOSTILE}")
        assert HOSTILE.split("/")[0] in page.text_content("main")
        page.evaluate("location.hash = '#/%E0%A4%A'")  # no proper escape
        page.wait_for_timeout(50)
        assert page.heard["complaints"] == []


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_no_page_scrolls_sideways(browser, site_of, width):
    for folder, routes in (("atlas", ROUTES), ("look", ("", "conv3"))):
        with opened(browser, site_of[folder], width=width) as page:
            for route in routes:
                page.go(route)
                assert page.evaluate("document.documentElement.scrollWidth") <= width, route
                wide = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.stage, .cell, svg'))"
                assert page.evaluate(f"{wide}.map(e => e.outerHTML.slice(0, 80))") == [], route


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_is_readable(browser, site_of, scheme):
    with opened(browser, site_of["atlas"], scheme=scheme) as page:
        for route in ROUTES:
            page.go(route)
            found = page.evaluate(CONTRASTS)
            assert len(found) > 10
            assert [item for item in found if item[1] < 4.5] == [], route
        body = next(back for name, _, back in found if name == "H1.")
        assert (body > 0.5) == (scheme == "light")


def test_pictures_have_labels_and_are_reachable_by_keyboard(browser, atlas_run, site_of):
    with opened(browser, site_of["atlas"], "conv5/3") as page:
        assert page.evaluate(
            "[...document.querySelectorAll('[role=img], button, canvas, .stage')].every(e => e.getAttribute('aria-label') || e.textContent || e.ariaHidden)"
        )
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "view"
        assert page.evaluate("location.hash") == "#/conv5/3"
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate(
                    "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"
                )
            )
        assert {"both", "projections", "Next feature"} <= reached
        assert any(label.startswith("1. ") for label in reached)


def test_keyboard_focus_is_kept(browser, site_of):
    with opened(browser, site_of["atlas"], "conv4") as page:
        page.focus("select")
        for sort in ("sparsity", "selectivity"):
            page.keyboard.press("ArrowDown")
            page.wait_for_function(
                "sort => location.hash.includes(sort) && document.querySelector('select').value === sort",
                arg=sort,
            )
            arrived(page)
            page.wait_for_timeout(50)
            assert page.evaluate("document.activeElement.id") == "order"
        page.focus("main .grid a")
        page.keyboard.press("Enter")
        page.wait_for_function(
            "document.querySelector('main h1').textContent.startsWith('conv4 feature')"
        )
        assert page.evaluate("document.activeElement.id") == "view"


def test_a_page_without_data_says_so(browser, tmp_path):
    files.write_page(tmp_path)
    context = browser.new_context()
    page = context.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    assert "data/index.js is missing" in page.text_content("main")
    context.close()


def test_an_unfinished_atlas_shows_its_finished_parts(
    browser, atlas_run, site_of, small_atlas_settings, tmp_path
):
    context = Context(str(atlas_run / "small.safetensors"), str(atlas_run / "tree"))

    def progress(items, total=None, desc=""):
        if desc == "conv3":
            raise KeyboardInterrupt
        return items

    context.progress = progress
    with pytest.raises(KeyboardInterrupt):
        atlas.write(context, tmp_path / "atlas")
    with opened(browser, (tmp_path / "atlas").as_uri()) as page:
        said = page.text_content("#unfinished")
        assert "missing: conv3, conv2, conv1, classes, images." in said
        assert page.is_visible("#unfinished")
        assert page.eval_on_selector_all(
            "main .strip strong", "all => all.map(s => s.textContent)"
        ) == ["conv5", "conv4"]
        page.go("conv4/3")
        assert heading(page) == "conv4 feature 3"
        page.keyboard.press("ArrowDown")  # conv3 is not there
        page.wait_for_timeout(50)
        assert page.evaluate("location.hash") == "#/conv4/3"
        for route in ("conv3", "conv3/1", "classes", "class/1", "images", "image/0"):
            page.go(route)
            assert "not finished yet" in page.text_content("main")
        assert page.heard["complaints"] == []
    with opened(browser, site_of["atlas"]) as page:
        assert not page.is_visible("#unfinished")


def test_look_shows_the_image_features_and_neighbors(browser, atlas_run, site_of):
    index = files.read(atlas_run / "look", "index")
    address = site_of["look"]
    with opened(browser, address) as page:
        assert heading(page) == f"{HOSTILE}.png"
        assert CLASSES[index["look"]["prediction"][0][0]] in page.text_content("main .card")
        assert page.eval_on_selector_all(
            ".pictures figcaption", "all => all.map(f => f.textContent)"
        ) == [
            "grad cam",
            "saliency",
        ]
        page.evaluate("Promise.all([...document.images].map(i => i.decode()))")
        page.focus(".stage")
        page.keyboard.press("ArrowDown")
        check(page, files.read(atlas_run / "look", "image"), 6, 5)
        page.click("#map a:has-text('conv5')")
        arrived(page, "conv5")
        features = files.read(atlas_run / "look", "conv5")["features"]
        assert page.eval_on_selector_all(
            "main .image-feature strong", "all => all.map(s => s.textContent)"
        ) == [f"feature {f['number']}" for f in features]
        shown = page.eval_on_selector_all(
            "main .image-feature", "all => all.map(w => w.querySelectorAll('.nine .tile').length)"
        )
        assert shown == [2 * f["neighbors"] for f in features]
        assert max(shown) == 18
        page.keyboard.press("ArrowLeft")
        arrived(page, "conv4")
        page.set_viewport_size({"width": 360, "height": 900})
        assert page.query_selector(".neighbors .tile").bounding_box()["width"] > 48
        assert page.heard["complaints"] == []
        assert [
            url for url in page.heard["requests"] if not url.startswith((address, "data:"))
        ] == []
