"""Training needs at least two classes."""

import shutil

import pytest
import torch

from zfnet.cli import main
from zfnet.data.folders import load_folder
from zfnet.training.config import parse
from zfnet.training.loop import train
from zfnet.training.plan import plan_run
from zfnet.training.setup import TrainingError, check_classes

ONE_CLASS = "training needs at least two classes, got n01440764"


def test_single_class_is_rejected_before_training(tree, tmp_path, capsys):
    for split in ("train", "val"):
        for wnid in ("n02088094", "n03000000"):
            shutil.rmtree(tree / split / wnid)

    def load(split, side):
        return load_folder(tree / split, side=side)

    with pytest.raises(TrainingError, match=ONE_CLASS):
        train(parse({"optim": {"batch": 4}}), load, tmp_path / "run")
    with pytest.raises(TrainingError, match=ONE_CLASS):
        plan_run(parse({"data": {"path": str(tree)}}), torch.device("cpu"))
    (tmp_path / "run.yaml").write_text("{}")
    command = ["train", str(tmp_path / "run.yaml"), "--data", str(tree), "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "run")]) == 2
    assert ONE_CLASS in capsys.readouterr().err
    assert not list(tmp_path.glob("run/model*"))


@pytest.mark.parametrize("classes", [[], ["a"], ["a", "a"]])
def test_fewer_than_two_different_classes_are_rejected(classes):
    with pytest.raises(TrainingError, match="at least two classes"):
        check_classes(classes, classes)
    check_classes([*classes, "b", "c"], [*classes, "c", "b"])
