"""Responses of the API against results of the library, and error messages."""

import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import zfnet
from tests.conftest import ROOT
from tests.explorer.conftest import Client, wait_until
from zfnet.explorer.api import Api
from zfnet.explorer.images import KEPT, clean_filename
from zfnet.explorer.variants import Rules, project_variant
from zfnet.explorer.wire import pack, unpack
from zfnet.occlusion import cover
from zfnet.plot import attribution_image, photograph, projection_image


def as_bytes(image):
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_binary_format_round_trips():
    values = np.arange(7, dtype=np.float32), np.arange(5, dtype=np.uint8).reshape(5, 1)
    header, arrays = unpack(pack({"nan": float("nan"), "text": "é"}, a=values[0], b=values[1]))
    assert header == {"nan": None, "text": "é"}
    for value, array in zip(values, arrays.values(), strict=True):
        np.testing.assert_array_equal(value, array)


def test_network_lists_layers_classes_and_methods(client, network):
    answer = client.get("network")
    assert answer["classes"] == network.classes
    assert [layer["name"] for layer in answer["layers"]] == [
        "conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8",
    ]  # fmt: skip
    assert [layer["field"] for layer in answer["layers"][:5]] == [7, 27, 75, 107, 139]
    assert answer["methods"] == list(zfnet.METHODS)
    assert "coffee" in answer["samples"]
    assert not answer["normalizes"]  # the bundled network has no normalization


def test_image_has_pixels_and_top_classes(client, coffee, coffee_trace):
    header, arrays = client.get("image", image="coffee")
    probability = coffee_trace.logits[0].softmax(0)
    assert header["best"] == probability.argsort(descending=True)[:5].tolist()
    np.testing.assert_allclose(
        header["probability"], probability[header["best"]].tolist(), rtol=1e-5
    )
    np.testing.assert_array_equal(arrays["pixels"], as_bytes(photograph(coffee)[0]))


def test_samples_have_thumbnails(client):
    header, arrays = client.get("samples")
    assert arrays["thumbnails"].shape == (len(header["names"]), 72, 72, 3)


def test_maps_are_strongest_first(client, coffee_trace):
    header, arrays = client.get("maps", image="coffee", layer="conv5", start=3, count=5)
    maps = coffee_trace["conv5"][0]
    order = maps.amax((1, 2)).argsort(descending=True, stable=True)[3:8]
    assert header["units"] == order.tolist()
    assert header["total"] == 256
    np.testing.assert_allclose(header["values"], maps[order].amax((1, 2)).tolist(), rtol=1e-5)
    scaled = maps[order] / maps[order].amax((1, 2), keepdim=True)
    assert np.abs(arrays["maps"].astype(int) - as_bytes(scaled.numpy()).astype(int)).max() <= 1
    rows = [maps[c, r, k].item() for c, (r, k) in zip(order, header["positions"], strict=True)]
    np.testing.assert_allclose(rows, header["values"], rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "unit", "at"),
    [("conv5", 17, "6,4"), ("conv5", 17, None), ("conv1", 3, "0,109"), ("fc8", 967, None)],
)
def test_unit_equals_project(client, network, coffee, layer, unit, at):
    parameters = {} if at is None else {"at": at}
    header, arrays = client.get("unit", image="coffee", layer=layer, unit=unit, **parameters)
    position = tuple(map(int, at.split(","))) if at else None
    p = zfnet.project(network, coffee, layer, unit, position, crop=True)
    assert header["at"] == p.position[0].tolist()
    assert header["box"] == p.box[0].tolist()
    assert header["activation"] == pytest.approx(float(p.activation[0]), rel=1e-4)
    top, left, bottom, right = header["box"]
    np.testing.assert_array_equal(
        arrays["patch"], as_bytes(photograph(coffee)[0])[top:bottom, left:right]
    )
    corner = (p.corner[0] if layer != "fc8" else torch.zeros(2, dtype=torch.int64)).tolist()
    r, c = top - corner[0], left - corner[1]
    expected = as_bytes(projection_image(p.pixels)[0])[r : r + bottom - top, c : c + right - left]
    difference = np.abs(arrays["projection"].astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert header["similarity"] == pytest.approx(1) or not p.pixels.any()


@pytest.mark.parametrize(
    "changes",
    [{"method": "guided"}, {"method": "gradient"}, {"method": "none"}, {"switches": 0}, {"collision": "overwrite"}],
)  # fmt: skip
def test_unit_with_changed_rules(client, network, coffee_trace, changes):
    header, arrays = client.get("unit", image="coffee", layer="conv4", unit=100, **changes)
    rules = Rules(
        changes.get("method", "deconvnet"), bool(changes.get("switches", 1)),
        changes.get("collision", "sum"),
    )  # fmt: skip
    at = tuple(header["at"])
    pixels = project_variant(network, coffee_trace, "conv4", 100, at, rules)
    paper = project_variant(network, coffee_trace, "conv4", 100, at, Rules())
    cosine = torch.nn.functional.cosine_similarity(pixels.flatten(), paper.flatten(), 0)
    assert header["similarity"] == pytest.approx(float(cosine), abs=1e-3)
    assert header["largest"] == pytest.approx(float(pixels.abs().max()), rel=1e-3)
    assert (arrays["projection"] != arrays["paper"]).any()


def test_neighbors_come_from_the_atlas(client, atlas):
    header, arrays = client.get("neighbors", layer="conv5", unit=97)
    assert header["values"] == [3.0, 2.0]
    assert header["names"] == ["image 4", "image 5"]
    with Image.open(atlas / "sheets" / "conv5-patches-0.webp") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    # Feature 97 is the second block of 3 x 3 tiles.
    np.testing.assert_array_equal(arrays["patches"][1], pixels[:90, 360:450])
    header, _ = client.get("neighbors", layer="conv5", unit=3)
    assert header["why"] == "the atlas has no pages for conv5/3"
    header, _ = client.get("neighbors", layer="conv2", unit=3)
    assert header["why"] == "the atlas has no conv2"


def test_cover_equals_an_occluded_forward_pass(client, network, coffee, coffee_trace):
    box = (40, 60, 110, 130)
    answer = client.get("cover", image="coffee", box="40,60,110,130", pins="conv5/17@6,4;fc7/9@0,0")
    target = int(coffee_trace.logits.argmax())
    x = cover(coffee[0], torch.tensor([box]), torch.zeros(3, 1, 1))
    t = zfnet.trace(network, x)
    assert answer["target"] == target
    assert answer["probability"] == pytest.approx(float(t.logits.softmax(1)[0, target]), rel=1e-4)
    assert answer["logit"] == pytest.approx(float(t.logits[0, target]), rel=1e-4)
    assert answer["label"] == int(t.logits.argmax())
    expected = [float(t["conv5"][0, 17, 6, 4]), float(t["fc7"][0, 9])]
    assert answer["pins"] == pytest.approx(expected, rel=1e-3, abs=1e-4)
    baseline = answer["baseline"]
    assert baseline["probability"] == pytest.approx(
        float(coffee_trace.logits.softmax(1)[0, target]), rel=1e-4
    )
    o = zfnet.occlude(network, coffee, target, size=112, stride=112)
    assert baseline["total"] == pytest.approx(float(o.baseline.activation), rel=1e-4)
    assert answer["strongest"] == ["conv5", int(o.channel)]
    corner = client.get("cover", image="coffee", box="0,0,112,112", target=target)
    assert corner["total"] == pytest.approx(float(o.activation[0, 0]), rel=1e-4)


def test_box_is_clipped_to_the_image(client):
    assert client.get("cover", image="coffee", box="-5,200,9,400")["box"] == [0, 200, 9, 224]


def test_sweep_equals_occlude(client, network, coffee):
    status, body = client.raw("sweep", image="coffee", size=112, stride=56, target=5)
    assert status == 200
    *progress, last = [json.loads(line) for line in body.decode().splitlines()]
    o = zfnet.occlude(network, coffee, 5, size=112, stride=56)
    np.testing.assert_allclose(last["result"]["probability"], o.probability, rtol=1e-3)
    np.testing.assert_allclose(last["result"]["total"], o.activation, rtol=1e-3)
    assert last["result"]["label"] == o.label.tolist()
    assert all(0 <= line["done"] <= line["total"] for line in progress)


def test_closing_the_stream_cancels_a_sweep(server, client):
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", f"/{server.token}/api/sweep?image=coffee&size=16&stride=4&tab=cancel")
    answer = connection.getresponse()
    wait_until(lambda: json.loads(answer.readline())["done"] > 0)
    answer.close()
    connection.close()
    # A second sweep must wait for the first, whose 2809 positions would take minutes.
    _, body = client.raw("sweep", image="coffee", size=112, stride=112, tab="second")
    assert "result" in json.loads(body.splitlines()[-1])


@pytest.mark.parametrize("method", ["grad_cam", "saliency", "gradient_x_input"])
def test_explain_equals_the_library(client, network, coffee, method):
    header, arrays = client.get("explain", image="coffee", method=method, target=967)
    a = zfnet.explain(network, coffee, method, 967)
    assert header["high"] == pytest.approx(float(a.map.max()), rel=1e-3)
    assert header["state"] == "ok"
    expected = as_bytes(attribution_image(a.map)[0][0])
    assert np.abs(arrays["picture"].astype(int) - expected.astype(int)).mean() < 0.5


def test_uploaded_image_is_classified(client, network):
    pixels = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    status, body = client.raw("upload", "POST", png(pixels), name="noise.png")
    assert status == 200
    image = json.loads(body)["image"]
    header, arrays = client.get("image", image=image)
    x = zfnet.preprocess(pixels)
    assert header["label"] == "noise.png"
    assert header["best"][0] == int(network(x).argmax())
    np.testing.assert_array_equal(arrays["pixels"], as_bytes(photograph(x)[0]))


def test_webcam_frames_replace_each_other(client, server):
    for value in (20, 200):
        content = png(np.full((256, 256, 3), value, np.uint8))
        _, body = client.raw("frame", "POST", content, tab="cam1")
        header, arrays = unpack(body)
        assert header["image"] == "webcam-cam1"
        assert abs(int(arrays["pixels"].mean()) - value) <= 1
    stored, arrays = client.get("image", image="webcam-cam1")
    assert stored["best"] == header["best"]
    assert abs(int(arrays["pixels"].mean()) - 200) <= 1


def test_number_of_images_in_memory_is_bounded(client, server):
    for value in range(KEPT + 3):
        client.raw("upload", "POST", png(np.full((9, 9, 3), value, np.uint8)), name=f"{value}.png")
    assert len(server.backend.images._images) == KEPT
    assert len(server.backend.images._labels) <= KEPT


def bomb(side):
    """Return a small PNG file of side x side pixels."""
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (b"", "empty.png", "empty.png is empty"),
        (b"not an image", "text.txt", "text.txt: not a readable image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "broken.png", "broken.png: not a readable image"),
        (bomb(12_000), "bomb.png", "bomb.png: 12000 x 12000 is over 100,000,000 pixels"),
        (bomb(20_000), "bomb.png", "bomb.png: not a readable image (Image size (400000000 pixels)"),
        (b"x", "../../etc/<b>passwd", "_b_passwd: not a readable image"),
    ],
)  # fmt: skip
def test_unusable_files_are_rejected_with_a_message(client, content, name, reason):
    assert client.error("upload", "POST", content, name=name).startswith(reason)


def test_upload_size_is_limited(server):
    client = Client(server)
    headers = {"Content-Length": "20000001"}
    status, body = client.request("POST", f"/{server.token}/api/upload?name=big.jpg", b"x", headers)
    assert (status, json.loads(body)["error"]) == (400, "the file has over 20 MB: choose a smaller")
    parts = (b"\0" * 1_000_000 for _ in range(21))  # chunked, without Content-Length
    try:
        status, body = client.request("POST", f"/{server.token}/api/upload?name=big.jpg", parts)
    except (BrokenPipeError, ConnectionResetError):
        return  # the server closed the connection early
    assert (status, json.loads(body)["error"]) == (400, "the file has over 20 MB: choose a smaller")


@pytest.mark.parametrize(
    ("kind", "parameters", "reason"),
    [
        ("image", {}, "the request lacks image="),
        ("image", {"image": "nothing"}, "this image is not in memory any more"),
        ("maps", {"image": "coffee", "layer": "conv9"}, "no layer 'conv9'; the network has conv1, conv2"),
        ("maps", {"image": "coffee", "layer": "conv5", "count": "9999"}, "count must be from 1 to 64"),
        ("unit", {"image": "coffee", "layer": "conv5", "unit": "256"}, "conv5 has units 0 to 255, got 256"),
        ("unit", {"image": "coffee", "layer": "conv5", "unit": "1", "at": "13,0"}, "conv5 has rows 0 to 12"),
        ("unit", {"image": "coffee", "layer": "conv5", "unit": "1e3"}, "unit must be a whole number, got '1e3'"),
        ("unit", {"image": "coffee", "layer": "conv5", "unit": "1", "method": "magic"}, "method must be one of deconvnet"),
        ("cover", {"image": "coffee", "box": "1,2,3"}, "box must be 4 numbers"),
        ("cover", {"image": "coffee", "box": "9,9,9,9"}, "box must be top,left,bottom,right"),
        ("cover", {"image": "coffee", "target": "1000"}, "target must be from 0 to 999"),
        ("cover", {"image": "coffee", "pins": "conv5/17"}, "a unit is written like conv5/17@6,4"),
        ("cover", {"image": "coffee", "pins": ";".join(["conv5/1@1,1"] * 9)}, "at most 8 units"),
        ("explain", {"image": "coffee", "method": "lime"}, "method must be one of saliency"),
        ("explain", {"image": "coffee", "method": "saliency", "target": "5000"}, "target must be a class from 0 to 999"),
        ("sweep", {"image": "coffee", "size": "4"}, "size must be from 8 to 224"),
        ("share", {"image": "coffee", "view": "cover"}, "the request lacks box="),
    ],
)  # fmt: skip
def test_invalid_requests_are_rejected_with_a_message(client, kind, parameters, reason):
    assert client.error(kind, **parameters).startswith(reason)


def test_file_names_are_cleaned():
    assert clean_filename("C:\\pictures\\my cat.jpg") == "my cat.jpg"
    assert clean_filename("../..") == "the file"
    assert len(clean_filename("a" * 500)) == 80


def test_documentation_lists_every_route(server):
    documented = re.findall(
        r"^\| `(\w+)`", (ROOT / "docs" / "explorer.md").read_text(), re.MULTILINE
    )
    assert sorted(documented) == sorted(r.path[1:] for r in Api(server.backend, None).routes())
