"""Fixtures for the page tests: a headless browser, and a small atlas with hostile class names."""

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
    """Write three classes of noisy images; each image has a bright square in the class color."""
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
    """Save a narrow ZFNet with random weights; feature 2 of conv5 is dead."""
    model = random_he(zfnet.zfnet(len(classes), channels=(6, 8, 8, 8, 9), fc_units=12, norm="none"))
    model.classes, model.wnids = list(classes), list(WNIDS)
    with torch.no_grad():
        model.conv5.weight[2], model.conv5.bias[2] = 0, -1
    zfnet.save(model, path)
    return path


def shrink_atlas(patch):
    """Reduce the cost of an atlas: parts of seven images, one demo image, a coarser occluder."""
    patch.setattr(tables, "PART", 7)
    patch.setattr(demos, "COUNT", 1)
    patch.setattr(demos, "OCCLUDER", demos.OCCLUDER | {"stride": 16})


@pytest.fixture(scope="module")
def small_atlas_settings():
    with pytest.MonkeyPatch.context() as patch:
        shrink_atlas(patch)
        yield


@pytest.fixture(scope="session")
def atlas_run(tmp_path_factory):
    """Return a folder with a small network, an image folder, and their complete atlas."""
    folder = tmp_path_factory.mktemp("small")
    context = Context(
        str(small_network(folder / "small.safetensors")), str(small_tree(folder / "tree"))
    )
    with pytest.MonkeyPatch.context() as patch:
        shrink_atlas(patch)
        atlas.write(context, folder / "atlas")
    return folder


@pytest.fixture
def context_and_atlas(small_atlas_settings, atlas_run):
    """Return the context of the network and its images, and the folder of their atlas."""
    context = Context(str(atlas_run / "small.safetensors"), str(atlas_run / "tree"))
    return context, atlas_run / "atlas"
