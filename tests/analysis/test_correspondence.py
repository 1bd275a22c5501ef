"""Correspondence against hand-computed arrays and a loop over pairs; annotated faces."""

import hashlib
import os
from itertools import permutations
from pathlib import Path

import pytest
import torch
import yaml

import zfnet
from reproduce.paper.dog_faces import FACES, PARTS
from reproduce.paper.fig8_parts import FIGURE
from tests.conftest import random_he
from zfnet.analysis.correspondence import (
    change_signs,
    correspondence,
    hamming_distance,
    mask_parts,
    part_boxes,
    random_points,
)


def test_signs_and_hamming_distance_by_hand():
    before = torch.tensor([[2.0, 0.0, 1.0, 4.0], [3.0, 5.0, 0.0, 0.0]])
    after = torch.tensor([[1.0, 0.5, 1.0, 4.0], [4.0, 5.0, 0.0, 2.0]])
    signs = change_signs(before, after)
    assert signs.tolist() == [[1, -1, 0, 0], [-1, 0, 0, -1]]
    # The signs differ in coordinates 0, 1 and 3; both are 0 in coordinate 2.
    assert hamming_distance(signs).tolist() == [[0, 0.75], [0.75, 0]]


def test_rounding_errors_count_as_no_change():
    before = torch.tensor([[100.0, 1.0]])
    assert change_signs(before, before + torch.tensor([[0.0, 5e-5]])).tolist() == [[0, 0]]
    assert change_signs(before, before + torch.tensor([[0.0, 5e-4]])).tolist() == [[0, -1]]


def test_mask_parts_covers_the_right_pixels():
    x = torch.ones(3, 3, 20, 30)
    masked = mask_parts(x, torch.tensor([[10, 12], [0, 0], [19, 29]]), 5, fill=-2.0)
    for image, (rows, columns) in zip(
        masked,
        ((range(8, 13), range(10, 15)), (range(3), range(3)), (range(17, 20), range(27, 30))),
        strict=True,
    ):
        for r in range(20):
            for c in range(30):
                assert image[:, r, c].tolist() == [-2.0 if r in rows and c in columns else 1.0] * 3
    assert (x == 1).all()
    assert part_boxes(torch.tensor([[10, 12]]), 4, 20, 30).tolist() == [[8, 10, 12, 14]]


@pytest.fixture(scope="module")
def model():
    return random_he(zfnet.zfnet(6, norm="lrn", channels=(6, 7, 8, 8, 5), fc_units=8, size=64))


def test_correspondence_equals_a_loop_over_pairs(model):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 64, 64, generator=generator)
    points = torch.randint(0, 64, (3, 4, 2), generator=generator)
    result = correspondence(model, x, points, size=16, batch=3)
    for layer, units in (("pool5", model.fc6.in_features), ("fc7", 8)):
        for p in range(3):
            changes = []
            for n in range(4):
                r, c = points[p, n].tolist()
                masked = x[n : n + 1].clone()
                masked[:, :, max(0, r - 8) : r + 8, max(0, c - 8) : c + 8] = 0
                changes.append(
                    (
                        zfnet.trace(model, x[n : n + 1])[layer] - zfnet.trace(model, masked)[layer]
                    ).flatten()
                )
            assert len(changes[0]) == units
            limit = [1e-6 * zfnet.trace(model, x[n : n + 1])[layer].abs().max() for n in range(4)]
            signs = [
                [0 if abs(v) <= limit[n] else (1 if v > 0 else -1) for v in changes[n].tolist()]
                for n in range(4)
            ]
            pairs = [
                sum(a != b for a, b in zip(signs[i], signs[j], strict=True)) / units
                for i, j in permutations(range(4), 2)
            ]
            assert float(result.delta[layer][p]) == pytest.approx(
                sum(pairs) / 12, abs=2 / units / 12
            )
            assert float(result.difference[layer][p, 0, 1]) == pytest.approx(
                pairs[0], abs=1 / units
            )
        torch.testing.assert_close(
            result.difference[layer], result.difference[layer].transpose(1, 2)
        )


def test_identical_images_correspond(model):
    x = torch.randn(1, 3, 64, 64).repeat(2, 1, 1, 1)
    same = correspondence(model, x, torch.tensor([[[30, 30], [30, 30]]]), size=16)
    assert same.delta["pool5"].tolist() == same.delta["fc7"].tolist() == [0]
    different = correspondence(model, x, torch.tensor([[[10, 10], [54, 54]]]), size=16)
    assert different.delta["pool5"][0] > 0


def test_invalid_arguments_are_rejected(model):
    x = torch.randn(2, 3, 64, 64)
    with pytest.raises(ValueError, match="at least two"):
        correspondence(model, x[:1], torch.zeros(1, 1, 2, dtype=torch.int64), size=16)
    with pytest.raises(ValueError, match=r"points must be \(P, 2, 2\)"):
        correspondence(model, x, torch.zeros(2, 2, dtype=torch.int64), size=16)
    with pytest.raises(ValueError, match="points in a 64 x 64 image"):
        correspondence(model, x, torch.full((1, 2, 2), 64), size=16)
    with pytest.raises(ValueError, match="size must be at least 1"):
        mask_parts(x, torch.zeros(2, 2, dtype=torch.int64), 0)
    with pytest.raises(ValueError, match="one point"):
        mask_parts(x, torch.zeros(1, 2, dtype=torch.int64), 8)


def test_random_parts_are_in_the_head_and_cover_no_part():
    boxes = torch.tensor([[20, 30, 160, 150], [0, 0, 200, 120]])
    avoid = torch.tensor([[[60, 60], [60, 120], [110, 90]], [[50, 40], [50, 90], [100, 60]]])
    centers = random_points(boxes, avoid, 37, 500, torch.Generator().manual_seed(0))
    assert centers.shape == (500, 2, 2)
    for n, (top, left, bottom, right) in enumerate(boxes.tolist()):
        for r, c in centers[:, n].tolist():
            assert ((r - (top + bottom - 1) / 2) / (bottom - top) * 2) ** 2 + (
                (c - (left + right - 1) / 2) / (right - left) * 2
            ) ** 2 <= 1
            assert 18 <= r < 224 - 18
            assert 18 <= c < 224 - 18
            assert all(abs(r - a) > 18 or abs(c - b) > 18 for a, b in avoid[n].tolist())
    assert len(centers[:, 0].unique(dim=0)) > 300
    repeated = random_points(boxes, avoid, 37, 500, torch.Generator().manual_seed(0))
    assert torch.equal(centers, repeated)
    with pytest.raises(ValueError, match="image 0: no square of 37"):
        random_points(
            torch.tensor([[50, 50, 70, 70]]), torch.tensor([[[60, 60]]]), 37, 1, torch.Generator()
        )


def test_annotated_faces():
    annotated = yaml.safe_load(FACES.read_text())
    assert len(annotated["imagenet"]) >= 12
    assert set(annotated) == {"imagenet", "samples"}
    for corpus, images in annotated.items():
        for name, marks in images.items():
            assert set(marks) == {*PARTS, "head"} | (
                {"sha256"} if corpus == "imagenet" else set()
            ), name
            top, left, bottom, right = marks["head"]
            assert 0 <= top < bottom <= 224
            assert 0 <= left < right <= 224
            right_eye, left_eye, nose = (marks[part] for part in PARTS)
            for r, c in (right_eye, left_eye, nose):
                assert top <= r < bottom, name
                assert left <= c < right, name
            assert right_eye[1] < left_eye[1], (
                f"{name}: the animal's right eye is on the left of a frontal picture"
            )
            assert right_eye[1] < nose[1] < left_eye[1], f"{name}: the nose is between the eyes"
            assert nose[0] > (right_eye[0] + left_eye[0]) / 2, f"{name}: the nose is below the eyes"
    size = FIGURE.config["size"]
    for images in annotated.values():  # every image leaves room for random parts
        points = torch.tensor([[marks[part] for part in PARTS] for marks in images.values()])
        heads = torch.tensor([marks["head"] for marks in images.values()])
        assert random_points(heads, points, size, 1, torch.Generator()).shape == (1, len(images), 2)


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("ZFNET_DATA"), reason="needs ImageNet-65k in $ZFNET_DATA")
def test_annotated_files_have_the_recorded_hashes():
    root = Path(os.environ["ZFNET_DATA"])
    present = {path.name: path for path in root.glob("val/*/*.JPEG")} or {
        path.name: path for path in root.glob("*/*.JPEG")
    }
    annotated = yaml.safe_load(FACES.read_text())["imagenet"]
    available = [name for name in annotated if name in present]
    assert available, f"no annotated image in {root}"
    for name in available:
        assert (
            hashlib.sha256(present[name].read_bytes()).hexdigest() == annotated[name]["sha256"]
        ), name
