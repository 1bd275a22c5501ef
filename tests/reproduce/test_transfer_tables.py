"""Tables 4-7 and Figure 9 from data set to picture, with small data sets and networks."""

import shutil

import pytest
import torch
import yaml

import zfnet
from reproduce.core.context import Context
from reproduce.core.discovery import discover
from reproduce.core.run import run
from reproduce.paper import protocol
from tests.data.test_benchmarks import caltech101, caltech256, voc2012
from zfnet.data.cache import DataError

NAMES = ("tab4", "tab5", "tab6", "tab7", "fig9")


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = zfnet.zfnet(3, channels=(8, 8, 8, 8, 8), fc_units=16, norm="batch")
    zfnet.save(model, tmp_path / "small.safetensors")
    return str(tmp_path / "small.safetensors")


@pytest.fixture
def short_training(tmp_path, monkeypatch):
    """Train from scratch for two steps of a small network."""
    config = yaml.safe_load(protocol.FROM_SCRATCH.read_text())
    config["model"] |= {"channels": [4, 4, 4, 4, 4], "fc_units": 8}
    config["optim"]["batch"] = 6
    config["stages"] = [
        {"epochs": 1, "size": 96, "side": 146},
        {"epochs": 1, "size": 128, "side": 146},
    ]
    (tmp_path / "short_training.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(protocol, "FROM_SCRATCH", tmp_path / "short_training.yaml")


def test_tables_are_computed_from_their_data_sets(tmp_path, checkpoint, short_training, tree):
    root = tmp_path / "datasets"
    for write in (caltech101, caltech256, voc2012):
        write(root)
    duplicate = tree / "train" / "n02088094" / "duplicate.JPEG"
    shutil.copy(
        root / "caltech101" / "101_ObjectCategories" / "accordion" / "image_0003.jpg", duplicate
    )
    context = Context(checkpoint, str(tree), datasets=str(root))
    outcomes = {name: run(discover()[name], context, tmp_path / "out") for name in NAMES}
    records = {name: outcome.record for name, outcome in outcomes.items()}
    assert all(
        record.verdict != "not run" and record.scale == "subset" for record in records.values()
    )
    table = records["tab4"].measured
    assert (table["images"], table["images that overlap with ImageNet"], records["tab4"].n) == (
        18,
        1,
        17,
    )
    assert records["tab4"].files == ["tab4.png"]
    for name in ("15 per class", "30 per class"):
        for values in (table["pretrained"], table["from scratch"]):
            mean, deviation = values[name]
            assert 0 <= mean <= 100
            assert deviation >= 0
        assert table["gain over training from scratch, points"][name][0] == pytest.approx(
            table["pretrained"][name][0] - table["from scratch"][name][0], abs=0.02
        )
    assert set(records["tab5"].measured["pretrained"]) == {
        f"{n} per class" for n in (15, 30, 45, 60)
    }
    assert set(records["tab7"].measured["Caltech-101"]["SVM"]) == {
        f"layer {n}" for n in (1, 2, 3, 4, 5, 7)
    }
    assert set(records["tab6"].measured["average precision"]) == {"dog", "cat"}
    assert all(
        (outcome.folder / file).is_file()
        for outcome in outcomes.values()
        for file in outcome.record.files
    )


def test_training_from_scratch_is_cached(tmp_path, checkpoint, short_training, monkeypatch):
    caltech101(tmp_path / "datasets")
    context = Context(checkpoint, None, datasets=str(tmp_path / "datasets"))
    images, figure = protocol.unseen(context, "caltech101")[1], discover()["tab4"].FIGURE
    first = protocol.train_from_scratch(context, images, 3, figure)
    monkeypatch.setattr(protocol, "train", lambda *a, **k: pytest.fail("trained again"))
    assert protocol.train_from_scratch(context, images, 3, figure) == first


def test_without_data_sets_tables_are_not_run(tmp_path, checkpoint):
    context = Context(checkpoint, None, datasets=str(tmp_path / "nowhere"))
    for name in NAMES:
        record = run(discover()[name], context, tmp_path / "out").record
        assert (record.verdict, record.measured, record.files) == ("not run", {}, [])
        assert "was not found" in record.note
        assert "ive the folder of torchvision's data sets with --datasets" in record.note
        assert record.paper


def test_run_without_data_preserves_an_earlier_result(tmp_path, checkpoint, short_training):
    caltech101(tmp_path / "datasets")
    with_data = Context(checkpoint, None, datasets=str(tmp_path / "datasets"))
    first = run(discover()["tab7"], with_data, tmp_path / "out")
    second = run(
        discover()["tab7"],
        Context(checkpoint, None, datasets=str(tmp_path / "nowhere")),
        tmp_path / "out",
    )
    assert second.record == first.record
    assert all((first.folder / name).is_file() for name in first.record.files)


def test_folder_without_training_images_is_an_error(tmp_path, checkpoint):
    caltech101(tmp_path / "datasets")
    context = Context(checkpoint, str(tmp_path), datasets=str(tmp_path / "datasets"))
    with pytest.raises(DataError, match="train: no such folder"):
        run(discover()["tab4"], context, tmp_path / "out")


def test_note_counts_values_of_c_at_the_end_of_the_range():
    choices = (0.1, 1.0, 10.0)
    results = [
        protocol.Classified([1.0, 2.0], [0.1, 1.0], choices),
        protocol.Classified([3.0], [10.0], choices),
    ]
    assert "an end of its range in 2 of 3 folds. " in protocol.grid_note(results)
    single_image = protocol.Classified([4.0, 5.0], [None, None], choices)
    assert (
        "2 of 3 folds. With one image per class, C is the middle of the range. "
        in protocol.grid_note([*results, single_image])
    )
