"""The page in headless Chromium: gestures, keyboard, layout, contrast, and displayed numbers."""

import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

import zfnet
from tests.explorer.conftest import Client, small_zfnet_with_lrn, wait_until
from zfnet.explorer.backend import Backend
from zfnet.explorer.server import Server
from zfnet.occlusion import cover
from zfnet.plot import projection_image

READBACK = "willReadFrequently"  # a warning of Chromium about reading pixels
PIXELS = """(canvas) => [canvas.width, canvas.height,
    ...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]"""


@pytest.fixture
def open_page(browser, server):
    """Return a function that opens the page; console messages and external requests are errors."""
    contexts, problems = [], []

    def open_it(state="", width=1280, height=900, server=server, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda m: problems.append(m.text) if READBACK not in m.text else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda r: problems.append(r.url) if outside(r.url, server) else None)
        page.goto(server.url + state)
        page.wait_for_selector("main[data-ready]")
        return page

    def outside(url, server):
        return not url.startswith((server.url, "data:", "blob:"))

    yield open_it
    for context in contexts:
        context.close()
    assert problems == []


def pixels(page, selector):
    """Return the pixels of a canvas (height, width, 3)."""
    width, height, *values = page.eval_on_selector(selector, PIXELS)
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def wait_for_unit(page, key):
    page.wait_for_selector(f'#unit-facts[data-key="{key}"]')


def choose_unit(page, unit, x=0.5, y=0.5):
    """Click the map of a unit at a relative position."""
    tile = page.locator(f'#maps [data-unit="{unit}"] canvas')
    tile.scroll_into_view_if_needed()
    page.wait_for_timeout(500)  # wait for the animation of the enlarged tile
    box = tile.bounding_box()
    tile.click(position={"x": box["width"] * x, "y": box["height"] * y})


def test_page_starts_with_a_photograph_and_its_classes(open_page, network, coffee_trace):
    page = open_page()
    page.wait_for_selector("#classes[data-image=coffee]")
    probability = coffee_trace.logits[0].softmax(0)
    for i, c in enumerate(probability.argsort(descending=True)[:5].tolist()):
        name, _, text = page.locator("#classes .rows > span").all_inner_texts()[3 * i : 3 * i + 3]
        assert name == network.classes[c]
        assert text == f"{100 * probability[c]:.1f} %"
    widths = page.locator("#classes .track i").evaluate_all("all => all.map((i) => i.style.width)")
    assert float(widths[0][:-1]) == pytest.approx(100 * float(probability.max()), rel=1e-4)


def test_clicking_a_map_shows_the_projection(open_page, network, coffee, coffee_trace):
    page = open_page()
    strongest = int(coffee_trace["conv5"][0].amax((1, 2)).argmax())
    page.wait_for_selector(f'#maps > :first-child[data-unit="{strongest}"]')
    choose_unit(page, strongest, x=4.5 / 13, y=6.5 / 13)
    wait_for_unit(page, f"conv5/{strongest}@6,4")
    p = zfnet.project(network, coffee, "conv5", strongest, (6, 4), crop=True)
    activation = float(page.get_attribute("#unit-facts", "data-activation"))
    assert activation == pytest.approx(float(p.activation[0]), rel=1e-4)
    expected = (projection_image(p.pixels)[0] * 255).round()
    assert np.abs(pixels(page, "#projection").astype(int) - expected).max() <= 1
    top, left, bottom, _ = p.box[0].tolist()
    style = page.eval_on_selector(
        ".stage .field", "(e) => [e.style.top, e.style.left, e.style.height]"
    )
    shares = [float(value[:-1]) / 100 * 224 for value in style]
    assert shares == pytest.approx([top, left, bottom - top], abs=0.01)
    wait_until(lambda: f"unit={strongest}" in address_of(page) and "at=6,4" in address_of(page))


@pytest.mark.parametrize("layer", ["conv1", "fc7", "fc8"])
def test_network_diagram_selects_the_layer(open_page, coffee_trace, layer):
    page = open_page()
    page.click(f"#map [data-layer={layer}]")
    maps = coffee_trace[layer][0]
    maximum = maps if maps.ndim == 1 else maps.amax((1, 2))
    page.wait_for_selector(f'#maps[data-shown="coffee {layer}"]')
    assert page.get_attribute("#maps > :first-child", "data-unit") == str(int(maximum.argmax()))
    assert page.locator("#map [aria-current]").get_attribute("data-layer") == layer
    page.wait_for_selector(f'#unit-facts[data-key^="{layer}/"]')
    page.click("#more")
    wait_until(lambda: page.locator("#maps > *").count() == 48)


def test_methods_and_rules_change_the_projection(open_page):
    page = open_page("#layer=conv4")  # shows the strongest unit
    page.wait_for_selector("#unit-facts[data-key]")
    paper = pixels(page, "#projection")
    pictures = [paper]
    for value in ("guided", "gradient"):
        page.click(f"#unit .choice [data-value={value}]")
        pictures.append(changed_projection(page, pictures))
        assert page.is_visible("#paper")
        assert (pixels(page, "#paper") == paper).all()
    page.click("#unit .choice [data-value=deconvnet]")
    page.click("#apart summary")
    for rule in ("method", "switches", "collision"):
        page.check(f"[data-rule={rule}]")
        pictures.append(changed_projection(page, pictures))
        assert "Cosine similarity" in page.inner_text("#similarity")
        page.uncheck(f"[data-rule={rule}]")
    wait_until(lambda: (pixels(page, "#projection") == paper).all())
    assert page.is_hidden("#paper")
    # This network has no normalization.
    assert page.locator("[data-rule=normalization]").count() == 0


def changed_projection(page, pictures):
    """Wait until the projection differs from all previous pictures, and return it."""

    def changed():
        picture = pixels(page, "#projection")
        return (
            [picture] if all(not np.array_equal(picture, previous) for previous in pictures) else []
        )

    return wait_until(changed)[0]


def test_neighbors_come_from_the_atlas(open_page, atlas):
    page = open_page("#layer=conv5&unit=97")
    page.wait_for_selector("#neighbors .nine canvas")
    assert page.locator("#neighbors .nine").nth(0).locator("canvas").count() == 2
    with Image.open(atlas / "sheets" / "conv5-projections-0.webp") as sheet:
        expected = np.asarray(sheet.convert("RGB"))[:90, 270:360]  # the second block
    np.testing.assert_array_equal(
        pixels(page, "#neighbors figure:nth-child(2) canvas:first-child"), expected
    )
    page.click("#map [data-layer=conv2]")
    page.wait_for_selector("#neighbors .why:has-text('the atlas has no conv2')")


def test_pinned_units_respond_to_the_occluder(open_page, network, coffee):
    page = open_page("#layer=conv5&unit=17&at=6,4")
    wait_for_unit(page, "conv5/17@6,4")
    page.click("#pin")
    page.wait_for_selector('[data-pin="conv5/17@6,4"] .value[data-now]')
    page.click("#views [data-value=cover]")
    page.wait_for_selector("#readout dd")
    stage = page.locator("#stage").bounding_box()
    page.mouse.move(stage["x"] + 40, stage["y"] + 40)
    page.mouse.down()
    for i in range(12):
        page.mouse.move(stage["x"] + 40 + 14 * i, stage["y"] + 40 + 10 * i)
    page.mouse.up()
    box = wait_until(lambda: settled_box(page))
    assert int(page.get_attribute("#readout", "data-answers")) >= 3  # updated during dragging
    occluded = cover(coffee[0], torch.tensor([box]), torch.zeros(3, 1, 1))
    t = zfnet.trace(network, occluded)
    target = int(network(coffee).argmax())
    value = float(page.get_attribute("#readout [data-id=probability]", "data-value"))
    assert value == pytest.approx(float(t.logits.softmax(1)[0, target]), rel=1e-3)
    value = float(page.get_attribute('[data-pin="conv5/17@6,4"] .value', "data-now"))
    assert value == pytest.approx(float(t["conv5"][0, 17, 6, 4]), rel=1e-3, abs=1e-4)
    assert page.is_visible(".stage .occluder")


def address_of(page):
    """Return the current address; `page.url` lags behind the events of the page."""
    return page.evaluate("location.href")


def settled_box(page):
    """Return the box in the address, or None until the readout shows the same box."""
    match = re.search(r"box=([\d,]+)", address_of(page))
    if match and page.get_attribute("#readout", "data-box") == match[1]:
        return [int(edge) for edge in match[1].split(",")]
    return None


def test_sweep_shows_progress_and_can_be_cancelled(open_page, network, coffee):
    page = open_page("#view=cover&size=16&target=967")
    page.click("#sweep")
    page.wait_for_selector("#progress[value]")
    page.click("#cancel")
    page.wait_for_selector("#sweep-note:has-text('cancelled')")
    assert page.is_hidden("#progress")
    page.eval_on_selector("#size", "(e) => { e.value = 112; e.dispatchEvent(new Event('input')); }")
    page.click("#sweep")
    page.wait_for_selector(".sweeps[data-result]")
    result = page.eval_on_selector(".sweeps", "(e) => JSON.parse(e.dataset.result)")
    o = zfnet.occlude(network, coffee, 967, size=112, stride=28)
    np.testing.assert_allclose(result["probability"], o.probability, rtol=1e-3)
    page.click("#save-sweep")
    page.wait_for_selector("#code:has-text('size, stride = 112, 28')")
    page.click("#close")
    page.locator("[data-map=logit] .cell").click(position={"x": 5, "y": 5})
    assert wait_until(lambda: settled_box(page)) == [0, 0, 112, 112]


def test_two_methods_are_compared_for_any_class(open_page, network, coffee):
    page = open_page("#view=compare&left=grad_cam&right=gradient_x_input")
    page.fill("#compare-target", "cup")
    page.press("#compare-target", "Enter")
    target = network.class_index("cup")
    for side, method in (("left", "grad_cam"), ("right", "gradient_x_input")):
        text = f'[data-side={side}] p[data-target="{target}"][data-method={method}]'
        page.wait_for_selector(text, state="attached")
        a = zfnet.explain(network, coffee, method, target)
        assert float(page.get_attribute(text, "data-high")) == pytest.approx(
            float(a.map.max()), rel=1e-3
        )
    page.select_option("#right-method", "saliency")
    page.wait_for_selector("[data-side=right] p[data-method=saliency]")
    wait_until(lambda: "right=" not in address_of(page))  # the default is not in the address


def png(color):
    buffer = io.BytesIO()
    Image.new("RGB", (300, 260), color).save(buffer, "PNG")
    return buffer.getvalue()


TRANSFER = """(bytes) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
    return transfer;
}"""


@pytest.mark.parametrize("gesture", ["choose", "drop", "paste", "sample"])
def test_images_are_chosen_dropped_pasted_or_sampled(open_page, network, gesture):
    page = open_page()
    page.wait_for_selector("#classes[data-image=coffee]")
    if gesture == "sample":
        page.click("[data-sample=cat]")
        x, name = zfnet.preprocess(zfnet.photograph("cat")), "cat"
    else:
        content = png("teal")
        x, name = zfnet.preprocess(Image.open(io.BytesIO(content))), "dropped.png"
        if gesture == "choose":
            page.set_input_files(
                "#file", {"name": name, "mimeType": "image/png", "buffer": content}
            )
        else:
            transfer = page.evaluate_handle(TRANSFER, list(content))
            property = "clipboardData" if gesture == "paste" else "dataTransfer"
            page.evaluate(
                """([transfer, property, gesture]) => {
                    const event = new Event(gesture, { bubbles: true, cancelable: true });
                    Object.defineProperty(event, property, { value: transfer });
                    document.body.dispatchEvent(event);
                }""",
                [transfer, property, gesture],
            )
    page.wait_for_selector(f"#caption:has-text('{name}')")
    assert page.get_attribute("#classes", "data-best") == str(int(network(x).argmax()))


def test_unusable_file_shows_a_message(browser, server):
    page = browser.new_page()
    page.goto(server.url)
    page.wait_for_selector("main[data-ready]")
    page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"text"})
    page.wait_for_selector("#notice:has-text('a.txt: not a readable image')")
    page.close()


def test_webcam_shows_its_frame_rate(open_page, server):
    page = open_page(permissions=["camera"])
    page.click("#webcam")
    page.wait_for_selector("#rate:has-text('frames/s')")
    assert page.get_attribute("#webcam", "aria-pressed") == "true"
    page.wait_for_selector("#classes[data-image^=webcam-]")
    page.wait_for_selector("#maps[data-shown^=webcam-]")
    page.click("#webcam")
    assert page.get_attribute("#webcam", "aria-pressed") == "false"
    assert page.inner_text("#rate") == ""
    image = page.get_attribute("#classes", "data-image")
    header, _ = Client(server).get("image", image=image)  # the last frame remains available
    assert header["image"] == image


def test_page_can_be_used_by_keyboard(open_page, network):
    page = open_page("#layer=conv5")
    page.wait_for_selector("#unit-facts[data-key^='conv5/']")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # skip to the maps
    active_unit = "document.activeElement.dataset.unit"
    wait_until(lambda: page.evaluate(active_unit))
    first_unit = page.evaluate(active_unit)
    page.keyboard.press("ArrowRight")
    second_unit = page.evaluate(active_unit)
    assert second_unit != first_unit
    page.wait_for_selector(f'#unit-facts[data-key^="conv5/{second_unit}@"]')
    page.keyboard.press("ArrowDown")
    assert page.evaluate(active_unit) not in (first_unit, second_unit)
    page.keyboard.press("ArrowUp")
    assert page.evaluate(active_unit) == second_unit
    page.focus("#unit-map")
    key = page.get_attribute("#unit-facts", "data-key")
    row, column = map(int, key.split("@")[1].split(","))
    page.keyboard.press("ArrowDown" if row < 6 else "ArrowUp")
    page.keyboard.press("ArrowRight" if column < 6 else "ArrowLeft")
    at = f"{row + (1 if row < 6 else -1)},{column + (1 if column < 6 else -1)}"
    wait_for_unit(page, f"conv5/{second_unit}@{at}")
    page.keyboard.press("p")
    page.wait_for_selector(f'[data-pin="conv5/{second_unit}@{at}"]')
    page.focus("#views [data-value=cover]")
    page.keyboard.press("Enter")
    page.focus("#stage")
    page.keyboard.press("ArrowRight")
    start = wait_until(lambda: settled_box(page))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    shifted = [start[0] + 4, start[1] + 4, start[2] + 4, start[3] + 4]
    wait_until(lambda: settled_box(page) == shifted)
    page.keyboard.press("+")
    wait_until(lambda: (b := settled_box(page)) and b[2] - b[0] == shifted[2] - shifted[0] + 8)
    page.keyboard.press("Escape")
    wait_until(lambda: page.get_attribute("#readout", "data-box") == "")
    assert page.is_hidden(".stage .occluder")


def test_address_contains_the_state(open_page):
    state = "#image=cat&view=features&layer=conv3&unit=100&at=5,7&method=guided&switches=0&pins=conv5/17@6,4"
    page = open_page(state)
    wait_for_unit(page, "conv3/100@5,7")
    page.wait_for_selector("#classes[data-image=cat]")
    page.wait_for_selector('[data-pin="conv5/17@6,4"]')
    assert page.get_attribute("#unit .choice [data-value=guided]", "aria-pressed") == "true"
    page.click("#map [data-layer=conv2]")
    page.wait_for_selector("#unit-facts[data-key^='conv2/']")
    page.wait_for_timeout(500)  # the address is updated with a delay
    address = address_of(page)
    second_page = open_page(address[address.index("#") :])
    second_page.wait_for_selector("#unit-facts[data-key^='conv2/']")
    assert second_page.get_attribute("#unit-facts", "data-key") == page.get_attribute(
        "#unit-facts", "data-key"
    )


@pytest.mark.parametrize(
    "state",
    ["#image=coffee&layer=nothing&unit=99999&at=1", "#%", "#at=1,2,3&pins=;;x@y&size=-4&method=1",
     "#layer=conv5&unit=3&at=99,99&target=70000&left=x"],
)  # fmt: skip
def test_invalid_address_shows_the_default_view(open_page, state):
    page = open_page(state)
    page.wait_for_selector("#unit-facts[data-key^='conv5/']")


def test_save_dialog_offers_picture_and_code(open_page, client):
    page = open_page("#layer=conv5&unit=17&at=6,4")
    wait_for_unit(page, "conv5/17@6,4")
    page.click("#save")
    page.wait_for_selector("#code")
    shared = client.get("share", image="coffee", layer="conv5", unit=17, at="6,4")
    assert page.text_content("#code") == shared["code"]
    assert page.inner_text("#share-caption") == shared["caption"]
    for button, suffix in (("#save-picture", ".png"), ("#save-code", ".py")):
        with page.expect_download() as download:
            page.click(button)
        assert download.value.suggested_filename == f"conv5-17-6-4{suffix}"
        content = download.value.path().read_bytes()
        assert content == shared["code"].encode() if suffix == ".py" else content[:4] == b"\x89PNG"
    page.click("#close")
    assert page.is_hidden("#dialog")


def test_tabs_share_one_network(open_page):
    pages = [open_page(f"#layer=conv{n}&unit={n}") for n in (3, 4, 5)]
    for n, page in zip((3, 4, 5), pages, strict=True):
        page.wait_for_selector(f'#unit-facts[data-key^="conv{n}/{n}@"]')


@pytest.mark.parametrize("width", [360, 800, 1280, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_every_screen_width_and_has_contrast(open_page, width, scheme):
    page = open_page("#pins=conv5/17@6,4&switches=0", width, color_scheme=scheme)
    page.wait_for_selector("#unit-facts[data-key]")
    for view in ("features", "cover", "compare"):
        page.click(f"#views [data-value={view}]")
        page.wait_for_selector(f"main[data-view={view}]")
        overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert overflow <= 0, (view, overflow)
        assert page.evaluate(CONTRAST) >= 4.5
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    lightness = np.mean([int(v) for v in re.findall(r"\d+", background)[:3]])
    assert (lightness < 60) == (scheme == "dark")


CONTRAST = """() => {
    const channel = (v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    const light = (color) => { const [r, g, b] = color.match(/\\d+/g).map(Number).map(channel); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const back = light(getComputedStyle(document.body).backgroundColor);
    return Math.min(...[...document.querySelectorAll("p, h2, small, figcaption")].filter((e) => e.offsetParent && !e.closest(".card, header, #notice"))
        .map((e) => light(getComputedStyle(e).color)).map((text) => (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05)));
}"""


def test_normalization_rule_is_shown_for_networks_with_normalization(open_page, server):
    lrn = Server(port=0, token=server.token)
    thread = lrn.start(Backend(small_zfnet_with_lrn(), "small"))
    try:
        page = open_page("#layer=conv4", server=lrn)
        page.wait_for_selector("#unit-facts[data-key]")
        paper = pixels(page, "#projection")
        page.click("#apart summary")
        page.check("[data-rule=normalization]")
        changed_projection(page, [paper])
        wait_until(lambda: "normalization=1" in address_of(page))
    finally:
        lrn.stop()
        thread.join(20)
