"""Caltech-101, Caltech-256 and PASCAL VOC 2012, on small trees in torchvision's layout."""

import numpy as np
import pytest
import torch
from PIL import Image

import zfnet
from zfnet.data.benchmarks import (
    VOC_CLASSES,
    DatasetNotFoundError,
    load_caltech101,
    load_caltech256,
    load_voc2012,
)
from zfnet.data.cache import DataError


def write_picture(path, color, seed=0):
    """Write a noisy image with a gradient in the color of a class."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (60, 80, 3)) + np.linspace(0, 60, 80).astype(int)[None, :, None]
    pixels[..., color] += 100
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=92)


def caltech101(root, count=6):
    for label, name in enumerate(("BACKGROUND_Google", "Faces", "accordion", "yin_yang")):
        for i in range(count):
            write_picture(
                root / "caltech101" / "101_ObjectCategories" / name / f"image_{i + 1:04d}.jpg",
                label % 3,
                10 * label + i,
            )


def caltech256(root, count=6):
    for label, name in enumerate(("001.ak47", "002.american-flag", "003.backpack", "257.clutter")):
        for i in range(count):
            path = (
                root
                / "caltech256"
                / "256_ObjectCategories"
                / name
                / f"{label + 1:03d}_{i + 1:04d}.jpg"
            )
            write_picture(path, label % 3, 10 * label + i)


def voc2012(root, count=8):
    """Write images that show a dog, a cat or both; the last dog is marked difficult."""
    folder = root / "VOCdevkit" / "VOC2012"
    for split in ("train", "val"):
        names = [f"{split}_{i:03d}" for i in range(count)]
        (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for i, name in enumerate(names):
            write_picture(folder / "JPEGImages" / f"{name}.jpg", i % 2, i)
            visible = [("dog", i == count - 1)] * (i % 2 == 0 or i == count - 1) + [
                ("cat", False)
            ] * (i % 2 or i == 0)
            objects = "".join(
                f"<object><name>{category}</name><difficult>{int(difficult)}</difficult></object>"
                for category, difficult in visible
            )
            (folder / "Annotations").mkdir(exist_ok=True)
            (folder / "Annotations" / f"{name}.xml").write_text(
                f"<annotation>{objects}</annotation>"
            )


def test_caltech101_without_its_background(tmp_path):
    caltech101(tmp_path)
    images = load_caltech101(tmp_path)
    assert list(images.classes) == ["Faces", "accordion", "yin_yang"]
    assert np.bincount(images.labels).tolist() == [6, 6, 6]
    file = tmp_path / "caltech101" / "101_ObjectCategories" / images.names[7]
    assert file.parent.name == images.classes[images.labels[7]]
    assert torch.equal(images.batch([7]), zfnet.preprocess(file))


def test_caltech256_without_its_clutter(tmp_path):
    caltech256(tmp_path)
    images = load_caltech256(tmp_path, side=146, size=128)
    assert list(images.classes) == ["001.ak47", "002.american-flag", "003.backpack"]
    assert np.bincount(images.labels).tolist() == [6, 6, 6]
    assert all(
        name.startswith(images.classes[label])
        for name, label in zip(images.names, images.labels, strict=True)
    )
    assert images.batch([0]).shape == (1, 3, 128, 128)


def test_voc_annotations(tmp_path):
    voc2012(tmp_path)
    data = load_voc2012(tmp_path, "val")
    dog, cat = VOC_CLASSES.index("dog"), VOC_CLASSES.index("cat")
    assert data.present[:, dog].tolist() == [1, 0, 1, 0, 1, 0, 1, -1]
    assert data.present[:, cat].tolist() == [1, 1, 0, 1, 0, 1, 0, 1]
    assert not np.delete(data.present, [dog, cat], 1).any()
    assert len(data.images) == 8
    assert data.digest != load_voc2012(tmp_path, "train").digest


@pytest.mark.parametrize(
    ("load", "folder"),
    [
        (load_caltech101, "caltech101/101_ObjectCategories"),
        (load_caltech256, "caltech256/256_ObjectCategories"),
        (lambda root: load_voc2012(root, "val"), "VOCdevkit/VOC2012"),
    ],
)
def test_missing_data_set_names_its_folder_and_creates_none(tmp_path, load, folder):
    with pytest.raises(DatasetNotFoundError, match=folder):
        load(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DataError, match=folder):
        load(tmp_path)


def test_unreadable_file_of_a_data_set_is_named(tmp_path):
    caltech101(tmp_path)
    (tmp_path / "caltech101" / "101_ObjectCategories" / "Faces" / "image_0002.jpg").write_bytes(
        b"no image"
    )
    with pytest.raises(DataError, match=r"Faces/image_0002\.jpg"):
        load_caltech101(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["<annotation><object>", "<annotation><object><name>unicorn</name></object></annotation>"],
)
def test_invalid_annotation_is_named(tmp_path, text):
    voc2012(tmp_path)
    (tmp_path / "VOCdevkit" / "VOC2012" / "Annotations" / "val_003.xml").write_text(text)
    with pytest.raises(DataError, match=r"val_003\.xml"):
        load_voc2012(tmp_path, "val")
