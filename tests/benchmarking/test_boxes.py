"""Images with boxes: masks in the view of the network, hashes, and bad tables."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

import zfnet
from zfnet.benchmarking import load_boxed
from zfnet.cli import main
from zfnet.data.cache import DataError
from zfnet.data.images import center_crop


@pytest.fixture
def boxed(tmp_path):
    """Two classes of two images; a white rectangle in each is what the table says, and one file is absent."""
    rng, lines = np.random.default_rng(0), ["file,sha256,top,left,bottom,right"]
    for number, (wnid, height, width) in enumerate((("a", 90, 120), ("a", 120, 90), ("b", 80, 80))):
        pixels = rng.integers(0, 100, (height, width, 3)).astype(np.uint8)
        top, left, bottom, right = 20 + 4 * number, 30, 60, 58
        pixels[top:bottom, left:right] = 255
        path = tmp_path / "val" / wnid / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(f"{wnid}/{number}.png,{sha256},{top},{left},{bottom},{right}")
    Image.fromarray(pixels).save(tmp_path / "val" / "b" / "without a box.png")
    lines.append("b/absent.png,,1,1,2,2")
    table = tmp_path / "boxes.csv"
    table.write_text("\n".join(lines))
    return tmp_path, table


def test_masks_are_the_boxes_in_the_view(boxed):
    root, table = boxed
    images = load_boxed(root, table, side=64, size=56)
    assert list(images.names) == ["a/0.png", "a/1.png", "b/2.png"]
    x = images.batch(range(3))
    white = zfnet.plot.photograph(x).mean(-1) > 0.85  # (N, 56, 56)
    mask = center_crop(torch.from_numpy(images.masks), 56).numpy()
    for i in range(3):
        overlap = (white[i] & mask[i]).sum() / (white[i] | mask[i]).sum()
        assert overlap > 0.85, images.names[i]  # up to the pixels at the edges


def test_a_wide_image_by_hand(boxed):
    """Image 0 is 90 x 120 pixels: 64 x 85 after the resize, of which 10 columns are cut off at the left."""
    mask = load_boxed(*boxed, side=64, size=64).masks[0]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert (rows[0], rows[-1] + 1) == (round(20 * 64 / 90), round(60 * 64 / 90))
    assert (columns[0], columns[-1] + 1) == (round(30 * 85 / 120) - 10, round(58 * 85 / 120) - 10)


def test_wrong_tables_and_files_are_named(boxed, tmp_path):
    root, table = boxed
    with pytest.raises(DataError, match=r"nothing\.csv: no such file"):
        load_boxed(root, tmp_path / "nothing.csv")
    wrong = tmp_path / "wrong.csv"
    for text, message in (
        ("file,top,left,bottom\na/0.png,1,2,3\n", "not a table with the columns file, top, left"),
        ("file,top,left,bottom,right\na/0.png,1,2,one,3\n", "not a table"),
        ("file,top,left,bottom,right\na/0.png,5,2,5,3\n", r"a/0\.png has an empty box"),
        ("file,top,left,bottom,right\nc/7.png,1,2,5,3\n", "has none of the 1 files"),
    ):
        wrong.write_text(text)
        with pytest.raises(DataError, match=message):
            load_boxed(root, wrong)
    Image.new("RGB", (90, 90)).save(root / "val" / "a" / "1.png")
    with pytest.raises(DataError, match=r"1\.png: not the file of .*another hash"):
        load_boxed(root, table)


def test_the_command_scores_pointing_in_the_boxes(boxed, tmp_path, capsys):
    root, table = boxed
    model = zfnet.zfnet(2, norm="batch", channels=(4,) * 5, fc_units=8, size=64)
    model.wnids = model.classes = ["a", "b"]
    zfnet.save(model.eval(), tmp_path / "net.safetensors")
    arguments = ["bench", "--model", str(tmp_path / "net.safetensors"), "-o", str(tmp_path / "out")]
    arguments += ["--methods", "saliency", "--metrics", "pointing,energy"]
    assert main([*arguments, "--data", str(root), "--boxes", str(table)]) == 0
    results = (tmp_path / "out" / "results.csv").read_text()
    truth = next(line for line in results.splitlines() if line.startswith("true mask,pointing"))
    assert float(truth.split(",")[2]) == 1
    assert main([*arguments, "--boxes", str(table)]) == 2
    assert "boxes are for a folder of images, not for scenes" in capsys.readouterr().err
