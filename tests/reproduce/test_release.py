"""Releases: packing a network trained in two runs, measuring it, and writing its model card."""

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
def training_runs(tree, tmp_path, monkeypatch):
    """Train twice on the tree, and let the second run start from the first.

    The first class has one more image than the others. The release is written to a temporary
    folder.
    """
    monkeypatch.setattr(release, "BUNDLED", tmp_path / "bundled")
    monkeypatch.setattr(release, "CARD", tmp_path / "CARD.md")
    (tmp_path / "bundled").mkdir()
    first_class = sorted((tree / "train").iterdir())[0]
    Image.fromarray(np.full((70, 90, 3), 99, np.uint8)).save(first_class / "one_more.JPEG")
    stages = (
        [{"epochs": 2, "size": 64, "side": 73}],
        [{"epochs": 1, "size": 64, "side": 73, "shared_fc6": True, "frozen_layers": 2}],
    )
    runs = [tmp_path / name for name in ("first", "second")]
    for run, run_stages, init_options in zip(
        runs, stages, ([], ["--init", str(runs[0] / "model.safetensors")]), strict=True
    ):
        config = run.with_suffix(".yaml")
        config.write_text(json.dumps(SMALL | {"stages": run_stages}))  # JSON is YAML
        assert (
            command(["train", str(config), "--data", str(tree), "--out", str(run), *init_options])
            == 0
        )
    return runs


def test_release_requires_the_training_images(training_runs, tree, capsys):
    (tree / "train" / "n02088094" / "n02088094_0.JPEG").unlink()
    with pytest.raises(SystemExit):
        release.main(
            [str(training_runs[1] / "model.safetensors"), "--data", str(tree), "--name", "small"]
        )
    assert "other training images" in capsys.readouterr().err
    assert not any(release.BUNDLED.iterdir())
    assert not release.CARD.exists()


def test_missing_path_is_reported_on_one_line(training_runs, tree, tmp_path, capsys):
    for checkpoint, data in (
        (tmp_path / "none.safetensors", tree),
        (training_runs[1] / "model.safetensors", tmp_path / "nowhere"),
    ):
        with pytest.raises(SystemExit, match="2"):
            release.main([str(checkpoint), "--data", str(data), "--name", "small"])
        missing = checkpoint if not checkpoint.exists() else data
        assert str(missing) in capsys.readouterr().err.splitlines()[-1]
    assert not any(release.BUNDLED.iterdir())


def test_hardware_is_given_once_or_per_run(training_runs, tree, capsys):
    arguments = [
        str(training_runs[1] / "model.safetensors"),
        "--data",
        str(tree),
        "--name",
        "small",
        *["--hardware", "a loom"] * 3,
    ]
    with pytest.raises(SystemExit):
        release.main(arguments)
    assert "3 times, for 2 training runs" in capsys.readouterr().err


def test_model_card_describes_the_release(training_runs, tree, tmp_path):
    options = [
        "--hardware",
        "an abacus",
        "--hardware",
        "a loom",
        "--note",
        "It rained.",
        "--note",
        "It snowed.",
    ]
    checkpoint = str(training_runs[1] / "model.safetensors")
    assert (
        release.main([checkpoint, "--data", str(tree), "--name", "small", "--ten-crops", *options])
        == 0
    )

    assert [path.name for path in (tmp_path / "bundled").iterdir()] == ["small.safetensors"]
    model = zfnet.load(tmp_path / "bundled" / "small.safetensors")
    scores = zfnet.evaluate(model, zfnet.load_folder(tree / "val"))
    assert model.info["accuracy"] == {"top1": round(100 - scores.top1, 2), "top5": 100, "n": 9} | {
        "protocol": "one center crop of 224 from 256, float32"
    }
    assert model.cam_head is not None
    assert model.cam_head[0].shape == (3, 6)

    card = (tmp_path / "CARD.md").read_text()
    repeated_weights = model.fc6.weight.numel() - model.fc6.weight[:, ::36].numel()
    assert (
        f"only {sum(p.numel() for p in model.parameters()) - repeated_weights:,} of the parameters are distinct"
        in card
    )
    assert "2 classes with 8 images and 1 with 9 to 9. Each epoch" in " ".join(card.split())
    measured = [line.split(" | ")[0] for line in card.splitlines() if " of 224 from 256, " in line]
    assert measured[:2] == ["| **as released**", "| as released"]  # by one crop and by ten
    packing = model.info[
        "accuracy, packing"
    ].items()  # in bfloat16 where the CPU has it: then both are rows of their own
    assert measured[2:] == [
        f"| {conditions}" for conditions, scores in packing if scores != model.info["accuracy"]
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
    assert "Layer 6 has the same weight at all positions of a map" in card
    # Epochs.
    assert (
        sum(
            line.count("|") == 8 and line[2].isdigit()
            for line in card.splitlines()
            if len(line) > 2
        )
        == 3
    )
