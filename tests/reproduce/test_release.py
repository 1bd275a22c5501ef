"""The release: a network of two cycles is packed, measured and described by its card."""

import json

import pytest

import zfnet
from reproduce import release
from reproduce.core import figure
from zfnet.cli import image_arguments
from zfnet.cli import main as command

SMALL = {
    "model": {"norm": "batch", "channels": [4, 6, 6, 6, 6], "fc_units": 12},
    "optim": {"batch": 8, "lr": 0.01},
    "precision": "float32",
    "val_images": 6,
}


@pytest.fixture
def runs(tree, tmp_path, monkeypatch):
    """Train twice, the second time from the first run's weights. All output goes to tmp_path."""
    for name, path in {"BUNDLED": "bundled", "CARD": "CARD.md", "LOGS": "logs"}.items():
        monkeypatch.setattr(release, name, tmp_path / path)
    monkeypatch.setattr(release, "FACTS", tmp_path / "facts.yaml")
    monkeypatch.setattr(release, "ANIMALS", tmp_path / "animals.csv")
    (tmp_path / "bundled").mkdir()
    facts = {"config": "small", "training": "a few", "data": "Few.", "hardware": "a loom"}
    facts = {"small": facts | {"notes": ["It rained.", "It snowed."]}, "absent": facts}
    (tmp_path / "facts.yaml").write_text(json.dumps(facts))
    stages = (
        [{"epochs": 2, "size": 64, "side": 73}],
        [{"epochs": 1, "size": 64, "side": 73, "shared_fc6": True, "frozen_layers": 2}],
    )
    runs = [tmp_path / name for name in ("first", "second")]
    initial = ([], ["--init", str(runs[0] / "model.safetensors")])
    for run, stage, init in zip(runs, stages, initial, strict=True):
        config = run.with_suffix(".yaml")
        config.write_text(json.dumps(SMALL | {"stages": stage}))  # JSON is YAML
        assert command(["train", str(config), "--data", str(tree), "--out", str(run), *init]) == 0
    return runs


def pack(checkpoint, data, *options):
    return release.main(["pack", str(checkpoint), "--data", str(data), "--name", "small", *options])


def test_release_requires_the_training_images(runs, tree, capsys):
    (tree / "train" / "n02088094" / "n02088094_0.JPEG").unlink()
    with pytest.raises(SystemExit):
        pack(runs[1] / "model.safetensors", tree)
    assert "other training images" in capsys.readouterr().err
    assert not any(release.BUNDLED.iterdir())
    assert not release.CARD.exists()


def test_missing_path_is_reported_on_one_line(runs, tree, tmp_path, capsys):
    for checkpoint, data in (
        (tmp_path / "none.safetensors", tree),
        (runs[1] / "model.safetensors", tmp_path / "nowhere"),
    ):
        with pytest.raises(SystemExit, match="2"):
            pack(checkpoint, data)
        missing = checkpoint if not checkpoint.exists() else data
        assert str(missing) in capsys.readouterr().err.splitlines()[-1]
    assert not any(release.BUNDLED.iterdir())


def test_model_card_describes_the_release(runs, tree, tmp_path):
    (tmp_path / "animals.csv").write_text(
        "classifier,group,photographs,top1,among5\nsmall,dog,7,12.5,50.0\nsmall,mean,7,12.5,50.0\n"
    )
    assert pack(runs[1] / "model.safetensors", tree, "--ten-crops") == 0

    assert [path.name for path in release.BUNDLED.iterdir()] == ["small.safetensors"]
    model = zfnet.load(release.BUNDLED / "small.safetensors")
    scores = zfnet.evaluate(model, zfnet.load_folder(tree / "val"))
    accuracy = model.info["accuracy"]
    assert accuracy == {
        "top1": round(100 - scores.top1, 2),
        "top5": 100,
        "n": 9,
        "protocol": "one center crop of 224 from 256, float32",
    }
    assert model.cam_head is not None
    assert model.cam_head[0].shape == (3, 6)

    card = release.CARD.read_text()
    (row,) = [
        line.split(" | ") for line in card.splitlines() if line.startswith("| `small` | a few")
    ]
    ten, before = (
        model.info["accuracy, ten crops"],
        model.info["accuracy, packing"]["before packing"],
    )
    assert row[2] == f"**{accuracy['top1']} / {accuracy['top5']}**"
    assert row[3:5] == [f"{ten['top1']} / {ten['top5']}", f"{before['top1']} / {before['top5']}"]
    tied = model.fc6.weight.numel() - model.fc6.weight[:, ::36].numel()
    assert row[5] == f"{sum(p.numel() for p in model.parameters()) - tied:,}"
    assert "- `small`: It rained.\n- `small`: It snowed.\n" in card
    assert "2 runs, each starting from the weights of the previous one; 3 epochs" in card
    assert "| dog | 7 | 12.5 |" in card
    log = (tmp_path / "logs" / "small.csv").read_text().splitlines()
    assert [line[:7] for line in log] == ["run,epo", "1,1,64,", "1,2,64,", "2,1,64,"]


def test_initial_network_that_is_bundled_is_recorded_by_name(runs):
    zfnet.save(
        zfnet.load(runs[0] / "model.safetensors", folded=False),
        release.BUNDLED / "first.safetensors",
    )
    initial = {"sha256": zfnet.load(release.BUNDLED / "first.safetensors").info["sha256"]}
    reference = release.bundled_reference(initial)
    assert reference == {"bundled": "first", **initial}
    model = zfnet.zfnet(classes=2)
    model.info = {"config": {}, "init": reference}
    assert release.training_runs(model) == [model.info]
    other = {"sha256": "0" * 64, "config": {}}
    assert release.bundled_reference(other) == other
    assert release.bundled_reference(None) is None


def test_committed_card_matches_the_bundled_networks(tmp_path, monkeypatch):
    card, logs = release.CARD, release.LOGS
    monkeypatch.setattr(release, "CARD", tmp_path / "CARD.md")
    monkeypatch.setattr(release, "LOGS", tmp_path / "logs")
    release.write_card()
    assert card.read_text() == (tmp_path / "CARD.md").read_text()
    for log in (tmp_path / "logs").iterdir():
        assert (logs / log.name).read_text() == log.read_text()


def test_default_network_is_the_same_everywhere():
    assert zfnet.checkpoint.DEFAULT_NETWORK == image_arguments.DEFAULT_MODEL == figure.DEFAULT_MODEL
    best = next(iter(release.card_facts()))
    assert best == zfnet.checkpoint.DEFAULT_NETWORK
