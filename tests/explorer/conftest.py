"""Fixtures: a server with the bundled network and a small atlas, a client, and a browser."""

import http.client
import json
import time
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from PIL import Image

import zfnet

pytest.importorskip("starlette", reason="needs the extra: pip install 'zfnet-deconvnet[explorer]'")
pytest.importorskip("uvicorn", reason="needs the extra: pip install 'zfnet-deconvnet[explorer]'")

from zfnet.explorer.backend import Backend
from zfnet.explorer.server import Server
from zfnet.explorer.wire import unpack

TOKEN = "token-of-the-tests"
SIDE, ROWS = 90, 32  # tile size in pixels, and features per sheet
ACROSS, BLOCK = 8, 3  # features per row of a sheet, and tiles per side of a feature's block


@pytest.fixture(scope="session")
def network():
    return zfnet.load("imagenet65k")


def write_atlas(folder, network):
    """Write an atlas of two conv5 features with random pictures, in the format of reproduce."""
    (folder / "data").mkdir(parents=True)
    (folder / "sheets").mkdir()
    layer = {"name": "conv5", "numbers": [17, 97], "side": SIDE}
    index = {
        "checkpoint": network.info["sha256"], "layers": [layer], "missing": [], "images": 9,
        "corpus": "noise", "rows": ROWS, "across": ACROSS, "block": BLOCK,
    }  # fmt: skip
    features = [
        {"value": [9.0 - i for i in range(9)], "image": list(range(9))},
        {"value": [3.0, 2.0], "image": [4, 5]},
    ]
    names = {"name": [f"image {i}" for i in range(9)]}
    for name, values in (("index", index), ("conv5", {"features": features}), ("names", names)):
        text = f'ATLAS["{name}"] = {json.dumps(values)};\n'
        (folder / "data" / f"{name}.js").write_text(text)
    rng = np.random.default_rng(0)
    for kind in ("patches", "projections"):
        pixels = rng.integers(0, 255, (BLOCK * SIDE, ACROSS * BLOCK * SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "sheets" / f"conv5-{kind}-0.webp", lossless=True)
    return folder


@pytest.fixture(scope="session")
def atlas(tmp_path_factory, network):
    return write_atlas(tmp_path_factory.mktemp("explorer") / "atlas", network)


@pytest.fixture(scope="session")
def server(network, atlas):
    """Start a server in a thread."""
    running = Server(port=0, token=TOKEN)
    running.backend = Backend(network, "imagenet65k", 'zfnet.load("imagenet65k")', atlas)
    thread = running.start(running.backend)
    yield running
    running.stop()
    thread.join(20)
    assert not thread.is_alive()


class Client:
    """A client that sends the requests of the page."""

    def __init__(self, server):
        self.server = server

    def request(self, method, path, body=None, headers=None):
        """Send any request; return the status and the body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=120)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, kind, **parameters):
        """Send a request of the API; return its JSON, or the header and arrays."""
        status, body = self.raw(kind, **parameters)
        assert status == 200, body
        return json.loads(body) if body[:1] == b"{" else unpack(body)

    def raw(self, kind, verb="GET", body=None, **parameters):
        path = f"/{TOKEN}/api/{kind}?{urlencode(parameters)}"
        return self.request(verb, path, body)

    def error(self, kind, verb="GET", body=None, **parameters):
        """Send an invalid request; return the error message."""
        status, answer = self.raw(kind, verb, body, **parameters)
        assert status == 400, (status, answer)
        return json.loads(answer)["error"]


@pytest.fixture
def client(server):
    return Client(server)


@pytest.fixture(scope="session")
def coffee():
    return zfnet.preprocess(zfnet.photograph("coffee"))


@pytest.fixture(scope="session")
def coffee_trace(network, coffee):
    return zfnet.trace(network, coffee)


def wait_until(condition, seconds=60):
    """Wait until a function returns a true value, and return the value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"the condition was not met within {seconds} s")


def small_zfnet_with_lrn():
    """Return a small random ZFNet with normalization layers."""
    torch.manual_seed(0)
    model = zfnet.zfnet(10, fc_units=16, size=112).eval()
    for module in model:
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    return model
