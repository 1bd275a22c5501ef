"""The dry run of training: its counts, measurements and errors; it writes nothing."""

import json
import re
import shutil

import pytest
import torch

from zfnet.checkpoint import CheckpointError
from zfnet.cli import main
from zfnet.data.cache import cache_dir
from zfnet.data.formats import ImageError
from zfnet.training import plan
from zfnet.training.config import parse
from zfnet.training.plan import plan_run
from zfnet.training.setup import TrainingError

SMALL = {
    "model": {"norm": "lrn", "channels": [4, 6, 6, 6, 6], "fc_units": 12, "size": 64},
    "optim": {"batch": 8, "ema": 0.9},
    "augment": {"crops": "resized"},
    "stages": [{"epochs": 3, "size": 48, "side": 64}, {"epochs": 30, "size": 64, "side": 73}],
    "precision": "float32",
}


def config(tree, **more):
    return parse(SMALL | {"data": {"path": str(tree)}} | more)


def test_plan_reports_counts_and_times(tree, monkeypatch):
    monkeypatch.setattr(plan, "_speed", lambda *a: 100.0)
    monkeypatch.setattr(plan, "_seconds", lambda work: 8.0)  # for 16 files
    text = "\n".join(plan_run(config(tree), torch.device("cpu")))
    assert "3 classes, the same in train/ and val/" in text
    assert "train: 24 images, 8 to 8 per class" in text
    assert "val: 9 images, 3 to 3 per class" in text
    assert "one epoch: 24 images, in 3 steps of 8" in text
    assert "decoding: 500.0 ms per image" in text
    assert "30 epochs at 64 pixels: 100 images/s in 1 processes on cpu in float32, 0.00 h" in text
    assert "the resume state is 0.00 GiB" in text
    long_run = parse(
        SMALL | {"data": {"path": str(tree)}, "stages": [{"epochs": 3000, "size": 64, "side": 73}]}
    )
    assert plan_run(long_run, torch.device("cpu"))[-1].startswith(
        f"about {(3000 * 24 / 100 + 33 * 0.5) / 3600:.1f} h"
    )


def test_dry_run_measures_speed_and_writes_nothing(tree, tmp_path, capsys, monkeypatch):
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(SMALL))
    before = set(cache_dir().iterdir())
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(path), "--data", str(tree), "--dry-run", "--device", "cpu"]) == 0
    speeds = [
        float(s.replace(",", "")) for s in re.findall(r"([\d,]+) images/s", capsys.readouterr().out)
    ]
    assert len(speeds) == 2
    assert all(speed > 0 for speed in speeds)
    assert set(cache_dir().iterdir()) == before
    assert not (tmp_path / "runs").exists()


def test_plan_rejects_configurations_that_training_rejects(tree, tmp_path, capsys):
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(SMALL))
    with pytest.raises(TrainingError, match="a batch of 64 is more than the 24 images of an epoch"):
        plan_run(config(tree, optim={"batch": 64}), torch.device("cpu"))
    with pytest.raises(TrainingError, match="scenes needs no check"):
        plan_run(parse(SMALL | {"data": {"kind": "scenes"}}), torch.device("cpu"))
    shutil.rmtree(tree / "val" / "n02088094")
    assert main(["train", str(path), "--data", str(tree), "--dry-run", "--device", "cpu"]) == 2
    assert "1 classes have no folder in val/: n02088094" in capsys.readouterr().err
    shutil.rmtree(tree / "val")
    assert main(["train", str(path), "--data", str(tree), "--dry-run", "--device", "cpu"]) == 2
    assert "val: no such folder" in capsys.readouterr().err


def test_plan_handles_unreadable_images_and_checkpoints_as_training_does(tree, monkeypatch):
    monkeypatch.setattr(plan, "_speed", lambda *a: 100.0)
    sorted((tree / "train").glob("*/*"))[0].write_text("no image")
    with pytest.raises(ImageError, match="not a readable image"):
        plan_run(config(tree), torch.device("cpu"))
    skipping = config(tree, data={"path": str(tree), "skip_unreadable": True})
    assert plan_run(skipping, torch.device("cpu"))
    with pytest.raises(CheckpointError, match="no such file"):
        plan_run(skipping, torch.device("cpu"), init="none.safetensors")


def test_gpu_memory_of_images_and_steps_is_added(monkeypatch):
    stage, peak = plan.Stage(epochs=1, size=224, side=256), {"bytes": 0}
    monkeypatch.setattr(plan, "gpu_memory", lambda device: (78 * plan.GIB, 80 * plan.GIB))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak["bytes"])
    images = 57 * plan.GIB // (3 * 256**2)
    for gib, too_large in ((10, False), (30, True)):
        peak["bytes"] = gib * plan.GIB
        description = plan._describe_memory(stage, images, torch.device("cuda"))
        assert description.startswith(f"steps take {gib}.0 GiB; 57.0 GiB of images stay on the GPU")
        assert ("together more than its 80.0 GiB: use a smaller batch" in description) == too_large
    peak["bytes"] = 30 * plan.GIB  # streamed images take no memory from the steps
    assert plan._describe_memory(stage, 2 * images, torch.device("cuda")).endswith(
        "are streamed, as they do not fit on the GPU"
    )


def test_steps_too_large_for_the_gpu_are_an_error(tree, monkeypatch):
    def out_of_memory(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(plan, "_speed", out_of_memory)
    with pytest.raises(TrainingError, match="steps of 8 images at 48 pixels do not fit"):
        plan_run(config(tree), torch.device("cpu"))
