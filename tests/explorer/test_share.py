"""The files of the save dialog: the code reproduces the picture."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import zfnet
from tests.conftest import ROOT
from zfnet.explorer.backend import Backend
from zfnet.explorer.share import share_cover
from zfnet.networks import load_network

VIEWS = {
    "unit": {"view": "unit", "layer": "conv5", "unit": 17, "at": "6,4"},
    "changed": {"view": "unit", "layer": "conv4", "unit": 100, "switches": 0, "method": "none"},
    "dense": {"view": "unit", "layer": "fc8", "unit": 967},
    "cover": {"view": "cover", "box": "40,60,110,130"},
    "guided": {"view": "unit", "layer": "conv3", "unit": 7, "method": "guided"},
    "overwrite": {"view": "unit", "layer": "conv5", "unit": 170, "collision": "overwrite"},
    "cover class": {"view": "cover", "box": "0,0,64,64", "target": 968},
    "sweep": {"view": "sweep", "size": 112, "stride": 56, "target": 967},
    "compare": {"view": "compare", "left": "grad_cam", "right": "gradient_x_input", "target": 967},
}


@pytest.mark.parametrize("parameters", VIEWS.values(), ids=VIEWS)
def test_shared_code_reproduces_the_picture(client, tmp_path, parameters):
    shared = client.get("share", image="coffee", **parameters)
    status, png = client.raw("picture", image="coffee", **parameters)
    assert status == 200
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.text["Title"] == shared["caption"]
        assert picture.text["Source"] == shared["code"]
        expected = np.asarray(picture.convert("RGB")).astype(int)
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""}
    script = tmp_path / "shared.py"
    script.write_text(shared["code"])
    # A warning, such as that of a reduction without its dimension, is an error, too.
    command = [sys.executable, "-W", "error::UserWarning", script]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    with Image.open(tmp_path / f"{shared['name']}.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).mean() < 0.5
    lines = [
        line
        for line in shared["code"].splitlines()
        if line and not line.startswith(("from", "import"))
    ]
    assert len(lines) <= 12


def test_caption_of_a_unit_has_its_activation(client):
    unit = client.get("unit", image="coffee", layer="conv5", unit=17, at="6,4")[0]
    shared = client.get("share", image="coffee", **VIEWS["unit"])
    assert shared["caption"] == (
        f"conv5/17 at row 6, column 4: activation {unit['activation']:.3f}"
    )


def test_uploaded_file_is_named_in_the_code(client):
    buffer = io.BytesIO()
    Image.new("RGB", (300, 300), "teal").save(buffer, "PNG")
    _, body = client.raw("upload", "POST", buffer.getvalue(), name='my "cat".png')
    shared = client.get("share", image=json.loads(body)["image"], **VIEWS["unit"])
    assert 'x = zfnet.preprocess("my _cat_.png", model.size)' in shared["code"]


def test_shared_code_of_other_networks_runs(tmp_path):
    """A network from torchvision, and one whose last operation is a softmax."""
    source = 'load_network("torchvision:squeezenet1_1", "random")'
    squeezenet = Backend(load_network("torchvision:squeezenet1_1", "random"), "s", source)
    torch.manual_seed(0)
    digits = zfnet.mnist().eval()
    digits.append(torch.nn.Softmax(1))
    for backend, box in ((squeezenet, (40, 60, 110, 130)), (Backend(digits, "d"), (4, 4, 12, 12))):
        shared = share_cover(backend, "coffee", box, None)
        code = shared.code.replace(f'"{shared.name}.png"', repr(str(tmp_path / "cover.png")))
        namespace = {} if backend.source else {"model": digits}
        exec(code, namespace)
        assert namespace["title"].replace("\n", "; ") == shared.caption
        with Image.open(tmp_path / "cover.png") as picture:
            ours = np.asarray(picture.convert("RGB")).astype(int)
        with Image.open(io.BytesIO(shared.png())) as picture:
            expected = np.asarray(picture.convert("RGB")).astype(int)
        assert np.abs(ours - expected).mean() < 0.5
