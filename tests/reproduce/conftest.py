"""Shared by the tests of the pages: a headless browser, and the atlas of a tiny network over hostile classes."""

import numpy as np
import pytest
import torch
from PIL import Image

import zfnet
from reproduce.core.context import Context
from reproduce.site import atlas
from reproduce.site.atlas import demos, tables
from tests.conftest import random_he

HOSTILE = "<img src=x onerror=alert(1)>"
WNIDS = ("n01440764", "n02088094", "n03000000")
CLASSES = (HOSTILE, "Afghan hound", "quoted\" title='x" + 90 * "W")


def small_tree(folder, each=7):
    """Three classes, each of one colour: noise, with a bright square of that colour somewhere."""
    rng = np.random.default_rng(0)
    for number, wnid in enumerate(WNIDS):
        (folder / "val" / wnid).mkdir(parents=True)
        for i in range(each):
            pixels = rng.integers(0, 90, (60, 70, 3)).astype(np.uint8)
            top, left = rng.integers(5, 30, 2)
            pixels[top : top + 25, left : left + 25, number] = 250
            Image.fromarray(pixels).save(folder / "val" / wnid / f"{wnid}_{i}.png")
    return folder


def small_network(path, classes=CLASSES):
    """A ZFNet of few maps with random weights; feature 2 of layer 5 is dead."""
    model = random_he(zfnet.zfnet(len(classes), channels=(6, 8, 8, 8, 9), fc_units=12, norm="none"))
    model.classes, model.wnids = list(classes), list(WNIDS)
    with torch.no_grad():
        model.conv5.weight[2], model.conv5.bias[2] = 0, -1
    zfnet.save(model, path)
    return path


def smaller(patch):
    """What is made for tests is small: parts of seven images, one demonstration image, an occluder in larger steps."""
    patch.setattr(tables, "PART", 7)
    patch.setattr(demos, "COUNT", 1)
    patch.setattr(demos, "OCCLUDER", demos.OCCLUDER | {"stride": 16})


@pytest.fixture(scope="module")
def few():
    with pytest.MonkeyPatch.context() as patch:
        smaller(patch)
        yield


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with a tiny network, a tree of images, and the whole atlas of both."""
    folder = tmp_path_factory.mktemp("small")
    context = Context(
        str(small_network(folder / "small.safetensors")), str(small_tree(folder / "tree"))
    )
    with pytest.MonkeyPatch.context() as patch:
        smaller(patch)
        atlas.write(context, folder / "atlas")
    return folder


@pytest.fixture
def small(few, made):
    """The network and its images as a context, and the folder of their atlas."""
    return Context(str(made / "small.safetensors"), str(made / "tree")), made / "atlas"
