"""Group accuracy on Animal Pose: boxes, crops and percentages computed by hand."""

import json

import pytest
import torch
from PIL import Image

from reproduce.animals import GROUPS, Animal, group_accuracy, read_animals, student
from zfnet import load


@pytest.fixture
def folder(tmp_path):
    """Write photographs of a dog, of a dog and a cat, of a cow not from VOC, and of two cats."""
    (tmp_path / "images").mkdir()
    names = {1: "2007_000063.jpg", 2: "2008_000001.jpg", 3: "co1.jpeg", 4: "2009_000002.jpg"}
    for name in names.values():
        Image.new("RGB", (300, 200)).save(tmp_path / "images" / name)
    boxes = [
        (1, 1, [10, 20, 110, 80]),
        (2, 1, [0, 0, 50, 50]),
        (2, 2, [50, 50, 90, 90]),
        (3, 5, [0, 0, 90, 90]),
        (4, 2, [0, 0, 20, 20]),
        (4, 2, [200, 100, 290, 190]),
    ]
    data = {
        "images": {str(i): name for i, name in names.items()},
        "categories": [
            {"id": 1, "name": "dog"},
            {"id": 2, "name": "cat"},
            {"id": 5, "name": "cow"},
        ],
        "annotations": [{"image_id": i, "category_id": c, "bbox": b} for i, c, b in boxes],
    }
    (tmp_path / "keypoints.json").write_text(json.dumps(data))
    return tmp_path


def test_photographs_of_one_group_use_their_largest_box(folder):
    animals = read_animals(folder)
    assert [(a.path.name, a.group, a.box) for a in animals] == [
        ("2007_000063.jpg", "dog", (10, 20, 110, 80)),
        ("2009_000002.jpg", "cat", (200, 100, 290, 190)),
    ]


def test_crop_is_a_square_around_the_box(folder):
    path = folder / "images" / "2007_000063.jpg"
    Image.linear_gradient("L").resize((300, 200)).convert("RGB").save(path, quality=100)
    pixels = Image.open(path)
    # The side is 114 = 100 * 256 / 224. Centered at (60, 50), the crop would start at (3, -7).
    assert Animal(path, "dog", (10, 20, 110, 80)).crop().tobytes() == (
        pixels.crop((3, 0, 117, 114)).tobytes()
    )
    # The crop is not larger than the photograph.
    assert Animal(path, "dog", (0, 0, 300, 200)).crop().size == (200, 200)


def test_percentages_by_group(folder):
    animals = read_animals(folder)

    def predict_dog(photographs):
        p = torch.zeros(len(photographs), 1000)
        p[:, GROUPS["dog"][0]] = 0.6
        p[:, GROUPS["cat"][0]] = 0.4
        return p

    table = group_accuracy(predict_dog, animals[:1] * 3 + animals[1:])
    assert table["dog"] == {"n": 3, "top1": 100.0, "among5": 100.0}
    assert table["cat"] == {"n": 1, "top1": 0.0, "among5": 0.0}


def test_groups_are_ranked_by_total_probability(folder):
    def predict_many_breeds(photographs):
        p = torch.zeros(len(photographs), 1000)
        p[:, GROUPS["dog"][:4]] = 0.15
        p[:, GROUPS["cat"][0]] = 0.4
        return p

    table = group_accuracy(predict_many_breeds, read_animals(folder))
    assert (table["dog"]["top1"], table["dog"]["among5"]) == (0.0, 100.0)


def test_network_outputs_are_ordered_by_wnid():
    model, photograph = load("imagenet65k"), Image.new("RGB", (50, 50), (200, 30, 30))
    expected = student(model)([photograph])
    model.wnids = model.wnids[::-1]
    with torch.no_grad():
        model.fc8.weight.copy_(model.fc8.weight.flip(0))
        model.fc8.bias.copy_(model.fc8.bias.flip(0))
    torch.testing.assert_close(student(model)([photograph]), expected)
