"""The release: a network of two cycles is packed, measured and described by its card."""

import json

import numpy as np
import pytest
from PIL import Image

import zfnet
from reproduce import release
from zfnet.cli import main as command

SMALL = {
    "model": {"norm": "batch", "channels": [4, 6, 6, 6, 6], "fc_units": 12},
    "optim": {"batch": 8, "lr": 0.01},
    "precision": "float32",
    "val_images": 6,
}


@pytest.fixture
def cycles(tree, tmp_path, monkeypatch):
    """Two runs over the tree, whose first class has an image more than the others; the second begins with the first's weights.

    What is released lands in the test's own folder, not in the package.
    """
    monkeypatch.setattr(release, "BUNDLED", tmp_path / "bundled")
    monkeypatch.setattr(release, "CARD", tmp_path / "CARD.md")
    (tmp_path / "bundled").mkdir()
    first = sorted((tree / "train").iterdir())[0]
    Image.fromarray(np.full((70, 90, 3), 99, np.uint8)).save(first / "one_more.JPEG")
    stages = (
        [{"epochs": 2, "size": 64, "side": 73}],
        [{"epochs": 1, "size": 64, "side": 73, "shared_fc6": True, "frozen_layers": 2}],
    )
    runs = [tmp_path / name for name in ("first", "second")]
    for run, of, begin in zip(
        runs, stages, ([], ["--init", str(runs[0] / "model.safetensors")]), strict=True
    ):
        config = run.with_suffix(".yaml")
        config.write_text(json.dumps(SMALL | {"stages": of}))  # JSON is YAML
        assert command(["train", str(config), "--data", str(tree), "--out", str(run), *begin]) == 0
    return runs


def test_other_images_than_it_was_trained_on_are_refused(cycles, tree, capsys):
    (tree / "train" / "n02088094" / "n02088094_0.JPEG").unlink()
    with pytest.raises(SystemExit):
        release.main([str(cycles[1] / "model.safetensors"), "--data", str(tree), "--name", "small"])
    assert "other training images" in capsys.readouterr().err
    assert not any(release.BUNDLED.iterdir())
    assert not release.CARD.exists()


def test_a_wrong_path_is_an_error_of_one_line(cycles, tree, tmp_path, capsys):
    for checkpoint, data in (
        (tmp_path / "none.safetensors", tree),
        (cycles[1] / "model.safetensors", tmp_path / "nowhere"),
    ):
        with pytest.raises(SystemExit, match="2"):
            release.main([str(checkpoint), "--data", str(data), "--name", "small"])
        missing = checkpoint if not checkpoint.exists() else data
        assert str(missing) in capsys.readouterr().err.splitlines()[-1]
    assert not any(release.BUNDLED.iterdir())


def test_hardware_is_of_all_cycles_or_of_each(cycles, tree, capsys):
    arguments = [
        str(cycles[1] / "model.safetensors"),
        "--data",
        str(tree),
        "--name",
        "small",
        *["--hardware", "a loom"] * 3,
    ]
    with pytest.raises(SystemExit):
        release.main(arguments)
    assert "3 times, for 2 training runs" in capsys.readouterr().err


def test_a_release_says_what_it_is_and_how_it_was_made(cycles, tree, tmp_path):
    said = [
        "--hardware",
        "an abacus",
        "--hardware",
        "a loom",
        "--note",
        "It rained.",
        "--note",
        "It snowed.",
    ]
    last = str(cycles[1] / "model.safetensors")
    assert release.main([last, "--data", str(tree), "--name", "small", "--ten-crops", *said]) == 0

    assert [path.name for path in (tmp_path / "bundled").iterdir()] == ["small.safetensors"]
    model = zfnet.load(tmp_path / "bundled" / "small.safetensors")
    scores = zfnet.evaluate(model, zfnet.load_folder(tree / "val"))
    assert model.info["accuracy"] == {"top1": round(100 - scores.top1, 2), "top5": 100, "n": 9} | {
        "protocol": "one centre crop of 224 from 256, float32"
    }
    assert model.cam_head is not None
    assert model.cam_head[0].shape == (3, 6)

    card = (tmp_path / "CARD.md").read_text()
    tied = model.fc6.weight.numel() - model.fc6.weight[:, ::36].numel()
    assert (
        f"only {sum(p.numel() for p in model.parameters()) - tied:,} of the parameters are distinct"
        in card
    )
    assert "2 classes with 8 images and 1 with 9 to 9; a twentieth" in " ".join(card.split())
    measured = [line.split(" | ")[0] for line in card.splitlines() if " of 224 from 256, " in line]
    assert measured[:2] == ["| **as released**", "| as released"]  # by one crop and by ten
    packing = model.info[
        "accuracy, packing"
    ].items()  # in bfloat16 where the CPU has it: then both are rows of their own
    assert measured[2:] == [
        f"| {when}" for when, scores in packing if scores != model.info["accuracy"]
    ]
    assert (
        f"| **as released** | {model.info['accuracy']['protocol']} | **{model.info['accuracy']['top1']}** |"
        in card
    )
    lines = [line.strip() for line in card.splitlines() if "zfnet train" in line]
    assert lines == ["zfnet train configs/small.yaml --data PATH --out runs/small"]
    assert "trained in 2 runs" in card
    assert [
        line.split(" on ")[1].split(",")[0] for line in card.splitlines() if " minutes on " in line
    ] == ["an abacus", "a loom"]
    assert "Stages: 2 epochs at 64 px." in card
    assert (
        "Stages: 1 epochs at 64 px with shared weights in layer 6 and layers 1 to 2 frozen." in card
    )
    assert "\n- It rained.\n- It snowed.\n" in card
    assert "Layer 6 has the same weight at all places of a map" in card
    # Epochs.
    assert (
        sum(
            line.count("|") == 8 and line[2].isdigit()
            for line in card.splitlines()
            if len(line) > 2
        )
        == 3
    )
