"""Soft labels of a teacher: writing, reading, and training with them."""

from __future__ import annotations

import builtins
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from zfnet.checkpoint import save
from zfnet.cli import distill_labels, main
from zfnet.data.cache import DataError
from zfnet.data.folders import load_folder
from zfnet.data.tensor_file import read_tensors
from zfnet.model import mnist
from zfnet.training import soft_labels
from zfnet.training.augment import crop, random_boxes
from zfnet.training.config import Augment, ConfigError, parse
from zfnet.training.distill import Replay, distillation_loss, jitter, mixup, targets
from zfnet.training.loop import train
from zfnet.training.soft_labels import (
    choose_images,
    label_boxes,
    load_labels,
    resolutions,
    write_labels,
)
from zfnet.training.teacher import Teacher


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Write three classes with four images of 64 pixels and one of 32 pixels each."""
    root = tmp_path_factory.mktemp("tree") / "train"
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (root / name).mkdir(parents=True)
        for i in range(5):
            side = 32 if i == 4 else 64
            pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((side, side)).save(root / name / f"{i}.png")
    return root


@pytest.fixture
def images(tree):
    return load_folder(tree, side=64, size=56)


def with_1000_classes(images):
    names = [str(i) for i in range(1000)]
    return replace(images, classes=names, wnids=names)


def by_color(pixels):
    """Return class probabilities that depend on the mean red of a crop."""
    red = pixels.mean((2, 3))[:, 0].div(25.6).long()  # 0 to 9
    logits = torch.arange(1000) * -1e-3 + 6.0 * F.one_hot(red, 1000)
    return logits.softmax(1)


COLOR = Teacher("color", 16, by_color)


def write(path, images, **options):
    resolution = np.array([32 if name.endswith("4.png") else 64 for name in images.names])
    return write_labels(path, images, resolution, COLOR, minimum=64, **options)


def test_labels_are_the_teacher_outputs_for_the_stored_crops(images, tmp_path):
    labels = write(tmp_path / "labels.safetensors", images)
    i, k = 7, 2
    pixels = crop(images.raw([i]), labels.boxes[i, k][None], 16)
    expected = by_color(pixels)[0]
    value, index = expected.topk(8)
    assert labels.index[i, k].tolist() == index.tolist()
    torch.testing.assert_close(labels.probability[i, k], value, atol=0.5 / 255 + 1e-6, rtol=0)
    replayed = labels.target(np.array([i]), torch.tensor([k]), 1.0)[0]
    torch.testing.assert_close(replayed, expected, atol=1e-2, rtol=0)
    assert replayed.sum() == pytest.approx(1, abs=1e-6)


def test_temperature_raises_probabilities_to_its_inverse_power(images, tmp_path):
    labels = write(tmp_path / "labels.safetensors", images)
    rows, crops = np.array([0]), torch.tensor([0])
    plain, soft = (labels.target(rows, crops, t)[0] for t in (1.0, 2.0))
    torch.testing.assert_close(soft, plain.sqrt() / plain.sqrt().sum())


def test_small_images_get_no_soft_labels(images, tmp_path):
    labels = write(tmp_path / "labels.safetensors", images)
    small = np.array([name.endswith("4.png") for name in images.names])
    assert (labels.probability.sum((1, 2)) > 0).tolist() == (~small).tolist()
    rows = np.flatnonzero(small)[:1]
    assert labels.target(rows, torch.tensor([0]), 1.0).count_nonzero() == 0


def test_interrupted_labeling_continues_to_the_same_file(images, tmp_path):
    complete = tmp_path / "whole.safetensors"
    write(complete, images)
    calls = 0

    def interrupt(pixels):
        nonlocal calls
        calls += 1
        if calls > 2:
            raise KeyboardInterrupt
        return by_color(pixels)

    path = tmp_path / "labels.safetensors"
    resolution = np.array([32 if name.endswith("4.png") else 64 for name in images.names])
    with pytest.raises(KeyboardInterrupt):
        write_labels(
            path, images, resolution, replace(COLOR, probabilities=interrupt), minimum=64, batch=8
        )
    assert not path.exists()
    crops_labeled = 0

    def count_crops(pixels):
        nonlocal crops_labeled
        crops_labeled += len(pixels)
        return by_color(pixels)

    write_labels(
        path, images, resolution, replace(COLOR, probabilities=count_crops), minimum=64, batch=8
    )
    assert crops_labeled == 12 * 4 - 16
    assert path.read_bytes() == complete.read_bytes()
    assert [file.name for file in tmp_path.iterdir()].count(".labels.safetensors.key") == 0


def test_partial_labels_of_other_images_are_rejected(images, tmp_path):
    path = tmp_path / "labels.safetensors"
    (tmp_path / ".labels.safetensors.key").write_text("another")
    with pytest.raises(DataError, match="from other images or options"):
        write(path, images)


def test_crops_depend_only_on_seed_and_file_name():
    options = {"crops": 2, "seed": 1, "scale": (0.5, 1.0), "aspect": 1.25}
    two = label_boxes(["x/1", "x/2"], **options)
    torch.testing.assert_close(label_boxes(["x/2"], **options)[0], two[1], rtol=0, atol=0)
    assert not torch.equal(two[0], two[1])
    assert not torch.equal(label_boxes(["x/1"], **options | {"seed": 2})[0], two[0])
    boxes = label_boxes([str(i) for i in range(500)], **options).flatten(0, 1)
    assert (boxes[:, :2].abs() + boxes[:, 2:].abs() <= 1 + 1e-6).all()  # inside the square
    side = (boxes[:, 2].abs() * boxes[:, 3]).sqrt()
    assert side.min() >= 0.5 - 1e-6
    assert 0.7 < side.mean() < 0.8
    ratio = boxes[:, 2].abs() / boxes[:, 3]
    assert ratio.max() <= 1.25 + 1e-5
    assert 0.4 < (boxes[:, 2] < 0).float().mean() < 0.6


def test_negative_width_mirrors_the_crop():
    raw = torch.randint(
        0, 256, (1, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    plain, mirrored = (crop(raw, torch.tensor([[0.0, 0.0, w, 1.0]]), 8) for w in (1.0, -1.0))
    torch.testing.assert_close(plain, raw.permute(0, 3, 1, 2).float())
    torch.testing.assert_close(mirrored, plain.flip(3))


def test_large_images_are_chosen_first(tree):
    files = sorted(tree.glob("*/*.png"))
    resolution = resolutions(files)
    assert sorted(set(resolution.tolist())) == [32, 64]
    labels = np.repeat([0, 1, 2], 5)
    chosen = choose_images(labels, resolution, 4, minimum=64)
    assert (resolution[chosen] == 64).all()
    assert np.bincount(labels[chosen]).tolist() == [4, 4, 4]
    assert len(choose_images(labels, resolution, 0)) == 15
    assert len(choose_images(labels, resolution, 5)) == 15


def test_targets_share_the_weight_between_class_and_teacher():
    teacher = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])
    true, soft = targets(torch.tensor([0, 2]), teacher, 3, weight=0.9, smoothing=0.0)
    torch.testing.assert_close(true, torch.tensor([[0.1, 0, 0], [0, 0, 1.0]]))
    torch.testing.assert_close(soft, torch.tensor([[0.45, 0.45, 0], [0, 0, 0]]))


def test_loss_is_cross_entropy_and_kl_up_to_a_constant():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 5, generator=generator, requires_grad=True)
    y, teacher = torch.tensor([0, 1, 2, 3]), torch.randn(4, 5, generator=generator).softmax(1)
    temperature, weight = 2.0, 0.7
    pair = targets(y, teacher, 5, weight=weight, smoothing=0.1)
    (actual,) = torch.autograd.grad(distillation_loss(logits, pair, temperature), logits)
    kl = (
        F.kl_div(F.log_softmax(logits / temperature, 1), teacher, reduction="batchmean")
        * temperature**2
    )
    reference = weight * kl + (1 - weight) * F.cross_entropy(logits, y, label_smoothing=0.1)
    (expected,) = torch.autograd.grad(reference, logits)
    torch.testing.assert_close(actual, expected)


def test_mixup_keeps_the_larger_share_and_sums_to_one():
    x = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 2, 2).contiguous()
    pair = targets(torch.arange(6), torch.eye(6), 6, weight=0.5, smoothing=0.0)
    mixed, (true, teacher) = mixup(x, pair, 0.4, (0, 1))
    assert ((true + teacher).diagonal() >= 0.5).all()
    torch.testing.assert_close((true + teacher).sum(1), torch.ones(6))
    # Images are mixed with the same weights as targets.
    torch.testing.assert_close(mixed[:, 0, 0, 0], (true + teacher) @ torch.arange(6.0))
    assert not torch.equal(mixed, x)


def test_unusable_label_files_are_named(images, tmp_path):
    path = tmp_path / "labels.safetensors"
    with pytest.raises(DataError, match=r"labels\.safetensors: no such file"):
        load_labels(path)
    write(path, images)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"labels\.safetensors: not a readable"):
        load_labels(path)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match=r"labels\.safetensors: damaged"):
        load_labels(path)
    save(mnist(), path)
    with pytest.raises(
        DataError, match=r"labels\.safetensors: not written by `zfnet distill-labels`"
    ):
        load_labels(path)


def test_images_without_labels_are_rejected(images, tmp_path):
    path = tmp_path / "labels.safetensors"
    write(path, images.subset([0, 1, 2]))
    with pytest.raises(DataError, match="12 of 15 training images have no labels, such as a/3.png"):
        Replay(path, with_1000_classes(images))
    with pytest.raises(DataError, match="the teacher has 1000 classes, the training images have 3"):
        Replay(path, images)


def test_labels_are_rejected_if_numpy_draws_different_crops(images, tmp_path, monkeypatch):
    path = tmp_path / "labels.safetensors"
    write(path, images)
    original = soft_labels.label_boxes
    monkeypatch.setattr(soft_labels, "label_boxes", lambda *args: original(*args) * 0.5)
    with pytest.raises(DataError, match="does not reproduce its crops"):
        load_labels(path)


def test_min_resolution_requires_labels():
    with pytest.raises(ConfigError, match="min_resolution needs distill.labels"):
        parse({"stages": [{"min_resolution": 128}]})


@pytest.mark.parametrize("amount", [0.1, 0.5])
def test_jittered_crops_are_near_the_original_and_inside_the_image(amount):
    options = Augment(crops="resized", scale=(0.5, 1.0), aspect=1.25)
    boxes = random_boxes(2000, options, torch.Generator().manual_seed(0))
    moved = jitter(boxes, amount, torch.Generator().manual_seed(1))
    assert torch.equal(moved, jitter(boxes, amount, torch.Generator().manual_seed(1)))
    half, old = moved[:, 2:].abs(), boxes[:, 2:].abs()
    assert (moved[:, :2].abs() + half <= 1 + 1e-6).all()
    ratio = half / old
    assert ratio.min() >= 1 - amount - 1e-6
    assert ratio.max() <= 1 / (1 - amount) + 1e-6
    assert ratio.std() > amount / 4
    inside = (boxes[:, :2].abs() + (1 + amount) / (1 - amount) * old < 1).all(1)  # no clamping
    assert inside.any() or amount > 0.4
    assert ((moved - boxes)[inside, :2].abs() <= amount * old[inside] + 1e-6).all()
    assert 0.45 < (moved[:, 2] < 0).float().mean() < 0.55


def test_training_follows_the_teacher_and_resumes_bit_for_bit(tree, images, tmp_path):
    """The student learns the teacher's labels; an interrupted run ends with the same weights."""
    path = tmp_path / "labels.safetensors"
    labels = write(path, images)
    assert len({int(i) for i in labels.index[:, :, 0].flatten()}) > 1
    config = parse(
        {
            "model": {"arch": "mnist", "norm": "batch", "size": 28},
            "augment": {"crops": "resized", "mixup": 0.2, "jitter": 0.1},
            "optim": {"batch": 4, "lr": 0.01, "schedule": "one_cycle", "clip_rms": 0.0, "ema": 0.9},
            "distill": {"labels": str(path), "weight": 1.0},
            "stages": [
                {"epochs": 5, "size": 28, "side": 64},
                {"epochs": 2, "size": 28, "side": 64, "min_resolution": 64},
            ],
            "precision": "float32",
        }
    )

    def load(split, side):
        return replace(with_1000_classes(images), size=28)

    lines = []
    train(config, load, tmp_path / "run", report=lines.append)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"]
    assert lines[-1].steps == 7 * 3

    class Killed(Exception):
        pass

    def kill(status):
        if status.epoch == 3:
            raise Killed

    with pytest.raises(Killed):
        train(config, load, tmp_path / "again", report=kill)
    train(config, load, tmp_path / "again", resume=True)
    a, b = (read_tensors(tmp_path / run / "model.safetensors")[0] for run in ("run", "again"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0)


def test_command_writes_labels_of_the_chosen_images(tree, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(distill_labels, "efficientnet_lite", lambda variant: COLOR)
    out, excluded = tmp_path / "labels.safetensors", tmp_path / "twins.txt"
    excluded.write_text("a/0.png\n")
    arguments = ["distill-labels", "--data", str(tree.parent), "--out", str(out), "--minimum", "64"]
    assert main([*arguments, "--per-class", "4", "--crops", "2", "--exclude", str(excluded)]) == 0
    assert f"wrote {out}: 12 images, 2 crops of 11 of them by color" in capsys.readouterr().out
    labels = load_labels(out)
    assert "a/0.png" not in labels.names
    assert "a/4.png" in labels.names  # small; chosen because too few large images are left
    assert "b/4.png" not in labels.names


def test_dry_run_neither_labels_nor_decodes(tree, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(distill_labels, "efficientnet_lite", lambda variant: COLOR)
    monkeypatch.setattr(distill_labels, "load_folder", lambda *a, **k: pytest.fail("decoded"))
    out, excluded = tmp_path / "labels.safetensors", tmp_path / "twins.txt"
    excluded.write_text("a/0.png\nnone/1.png\n")
    arguments = ["--data", str(tree), "--out", str(out), "--minimum", "64", "--crops", "2"]
    assert main(["distill-labels", *arguments, "--exclude", str(excluded), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert f"{excluded}: left out 1 of 15 images" in text
    assert "15 images in the tree; 14 would be labeled" in text
    assert "11 of them, of at least 64 pixels, by color: 2 crops each" in text
    assert f"would be written to {out}" in text
    assert not list(tmp_path.glob("*labels*"))


def test_missing_onnxruntime_names_the_extra(tree, tmp_path, monkeypatch, capsys):
    original_import = builtins.__import__

    def import_without_onnxruntime(name, *args, **kwargs):
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'", name="onnxruntime")
        return original_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", import_without_onnxruntime)
    assert (
        main(["distill-labels", "--data", str(tree), "--out", str(tmp_path / "x.safetensors")]) == 2
    )
    assert ".[distill]" in capsys.readouterr().err


def test_wrong_options_are_reported_on_one_line(tree, tmp_path, capsys):
    out = tmp_path / "labels.safetensors"
    command = ["distill-labels", "--data", str(tree), "--out", str(out)]
    for options in (
        ["--seed", "-1"],
        ["--minimum", "-5"],
        ["--exclude", str(tmp_path / "nothing")],
    ):
        assert main([*command, *options]) == 2
        assert options[0] in capsys.readouterr().err
    out.write_bytes(b"")
    assert main(command) == 2
    assert "exists; remove it" in capsys.readouterr().err
