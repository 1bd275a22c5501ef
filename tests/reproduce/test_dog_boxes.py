"""Boxes from crops: a crop is found at its scale and aspect, also where the image cuts it off, and nowhere else."""

import csv
import hashlib
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from reproduce.dog_boxes import LEAST, main
from reproduce.template import masked_correlation, match

SIDE = 224


def texture(seed, side=320):
    """A smooth random RGB image (side, side, 3)."""
    noise = np.random.default_rng(seed).normal(size=(side, side, 3))
    smooth = sum(gaussian_filter(noise, (s, s, 0)) * s for s in (2, 5, 12))
    low, high = np.percentile(smooth, (1, 99))
    return (255 * ((smooth - low) / (high - low)).clip(0, 1)).astype(np.uint8)


def cut(photograph, box):
    """The square view of a photograph, and the contents of a box of the view, resized to a square."""
    view = Image.fromarray(photograph[48 : 48 + SIDE, 48 : 48 + SIDE])
    top, left, bottom, right = (edge + 48 for edge in box)
    inside = Image.fromarray(photograph[top:bottom, left:right])
    return view, inside.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def gray(image):
    return torch.from_numpy(np.asarray(image.convert("L"), dtype=np.float32) / 255)


@pytest.mark.parametrize(
    "box", [(40, 60, 160, 150), (20, 30, 90, 210), (-30, 100, 120, 260)], ids=str
)
def test_crop_is_located_within_a_pixel(box):
    view, inside = cut(texture(0), box)
    result = match(gray(inside), gray(view))
    assert result.correlation > LEAST
    clipped = (SIDE * np.array(result.box)).clip(0, SIDE)  # edges outside cannot be located
    assert np.abs(clipped - np.clip(box, 0, SIDE)).max() < 1.5


def test_crop_of_another_image_is_rejected():
    view, _ = cut(texture(0), (40, 60, 160, 150))
    _, other = cut(texture(1), (40, 60, 160, 150))
    assert match(gray(other), gray(view)).correlation < LEAST - 0.1


def test_masked_correlation_is_that_of_the_part_inside():
    generator = torch.Generator().manual_seed(0)
    image, template = torch.rand(9, 8, generator=generator), torch.rand(4, 3, generator=generator)
    result = masked_correlation(template, image, 0.5)
    assert result.shape == (12, 10)
    inside = np.corrcoef(template.flatten(), image[2:6, 4:7].flatten())[0, 1]
    assert float(result[2 + 3, 4 + 2]) == pytest.approx(inside, abs=1e-5)
    cut_off = np.corrcoef(template[2:].flatten(), image[:2, 4:7].flatten())[0, 1]
    assert float(result[-2 + 3, 4 + 2]) == pytest.approx(cut_off, abs=1e-5)
    assert float(result[0, 0]) == -1  # one of twelve pixels is inside


def test_the_command_writes_boxes_and_hashes_only(tmp_path, capsys):
    """Two images have a crop; the crop of a third is of another photograph, and a fourth has none."""
    boxes = {"n0_1": (40, 60, 160, 150), "n0_2": (30, 20, 200, 170)}
    crops = tmp_path / "crops"
    for number, name in enumerate(("n0_1", "n0_2", "n0_3", "n0_4")):
        box = boxes.get(name, (50, 50, 150, 150))
        view, inside = cut(texture(number), box)
        if name == "n0_3":
            _, inside = cut(texture(9), box)
        (tmp_path / "val" / "n0").mkdir(parents=True, exist_ok=True)
        (crops / "data" / "n0-dog").mkdir(parents=True, exist_ok=True)
        view.save(tmp_path / "val" / "n0" / f"{name}.png")
        if name != "n0_4":
            inside.save(crops / "data" / "n0-dog" / f"{name}.jpg", quality=92)
    git = ["git", "-C", str(crops), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "Add crops"]):
        subprocess.run([*git, *command], check=True)

    out = tmp_path / "dogs.csv"
    assert main([str(crops / ".git"), "--data", str(tmp_path), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"wrote {out}: 2 boxes of 3 images" in printed
    rows = {row["file"]: row for row in csv.DictReader(out.open())}
    assert rows.keys() == {"n0/n0_1.png", "n0/n0_2.png"}
    for name, box in boxes.items():
        row = rows[f"n0/{name}.png"]
        recovered = [int(row[edge]) for edge in ("top", "left", "bottom", "right")]
        assert np.abs(np.array(recovered) - box).max() <= 2
        path = tmp_path / "val" / "n0" / f"{name}.png"
        assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
