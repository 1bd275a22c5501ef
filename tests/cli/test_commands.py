"""Commands: printed output, files, and errors on one line with exit status 2."""

import importlib
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import zfnet
from tests.conftest import ROOT
from zfnet.cli import main


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "cat.png"
    zfnet.photograph("cat").save(path)
    return str(path)


def test_describe_prints_the_layers_of_fig_3(capsys):
    assert main(["describe", "--arch", "zfnet"]) == 0
    text = capsys.readouterr().out
    assert "62.4 M parameters, 1,168 M multiply-adds" in text
    rows = {line.split()[0]: line for line in text.splitlines() if line}
    assert "conv 7x7, stride 2, pad 1" in rows["conv1"]
    assert "110 x 110 x 96" in rows["conv1"]
    assert "6 x 6 x 256" in rows["pool5"]
    assert main(["describe", "--arch", "alexnet"]) == 0
    assert "55 x 55 x 96" in capsys.readouterr().out


def test_describe_prints_the_bundled_network_by_default(capsys):
    assert main(["describe"]) == 0
    text = capsys.readouterr().out
    assert "imagenet65k: 15.2 M parameters" in text
    assert "conv1 " in text
    assert "flatten" not in text
    assert "bn1" not in text
    assert main(["describe", "--model", "torchvision:resnet18"]) == 0
    text = capsys.readouterr().out
    assert "torchvision:resnet18: 11.7 M parameters, 1,814 M multiply-adds per forward pass" in text
    assert "layer4.1.conv2" in text
    assert main(["describe", "--model", "torchvision:resnet18", "--weights", "random"]) == 0
    assert capsys.readouterr().out == text


def test_columns_of_describe_are_aligned(capsys):
    assert main(["describe", "--arch", "alexnet"]) == 0
    header, *rows, total, _ = capsys.readouterr().out.splitlines()
    ends = [header.index(name) + len(name) for name in ("output", "parameters", "multiply-adds")]
    for row in (header, *rows, total):
        for end in ends[:2]:
            assert row[end : end + 2].strip() == ""
        assert len(row) <= ends[2]
    assert total[: ends[0]].strip() == "total"
    assert total.split() == ["total", "62,378,344", "1,135,256,096"]


def test_project_writes_a_picture(photo, tmp_path, capsys):
    out = tmp_path / "deep" / "out.png"
    assert main(["project", photo, "--layer", "conv5", "--channel", "17", "-o", str(out)]) == 0
    image = np.asarray(Image.open(out).convert("L"), dtype=float)
    assert min(image.shape) > 300
    assert image.std() > 10
    printed = capsys.readouterr().out
    assert "conv5, channel 17" in printed
    assert printed.splitlines()[-1] == f"wrote {out}"
    assert (
        main(["project", photo, "--layer", "conv3", "--position", "0", "12", "-o", str(out)]) == 0
    )
    assert "row 0, column 12" in capsys.readouterr().out


def test_occlude_writes_a_picture(photo, tmp_path, capsys):
    out = tmp_path / "out.jpg"
    assert (
        main(
            [
                "occlude",
                photo,
                "--target",
                "tabby",
                "--size",
                "80",
                "--stride",
                "48",
                "-o",
                str(out),
            ]
        )
        == 0
    )
    assert out.stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "tabby: probability" in printed
    assert printed.splitlines()[-1] == f"wrote {out}"


def test_explain_writes_a_picture(photo, tmp_path, capsys):
    out = tmp_path / "out.png"
    assert (
        main(["explain", photo, "--method", "grad_cam", "--target", "tabby", "-o", str(out)]) == 0
    )
    with Image.open(out) as image:
        assert min(image.size) > 300
    printed = capsys.readouterr()
    assert printed.out.startswith("grad_cam for tabby: probability 0.")
    assert "raw values from 0 to " in printed.out
    assert printed.out.splitlines()[-1] == f"wrote {out}"
    assert printed.err == ""


def test_explain_reports_uninformative_maps(photo, tmp_path, capsys):
    model = zfnet.zfnet(3, channels=(4,) * 5, fc_units=8, size=64)
    torch.nn.init.zeros_(model.fc8.weight)
    zfnet.save(model, tmp_path / "m.safetensors")
    out = tmp_path / "out.png"
    assert (
        main(
            [
                "explain",
                photo,
                "--method",
                "saliency",
                "--model",
                str(tmp_path / "m.safetensors"),
                "-o",
                str(out),
            ]
        )
        == 0
    )
    printed = capsys.readouterr()
    assert "raw values from 0 to 0; the map is all zero" in printed.out
    assert "the map is all zero; it does not explain this image" in printed.err
    assert out.exists()


def test_top_of_an_image_folder(tree, tmp_path, capsys):
    out = tmp_path / "top.png"
    assert (
        main(
            [
                "top",
                "--data",
                str(tree),
                "--layer",
                "conv2",
                "--channel",
                "3",
                "-k",
                "4",
                "-o",
                str(out),
            ]
        )
        == 0
    )
    wrote, *lines = capsys.readouterr().out.splitlines()
    assert wrote == f"wrote {out}"
    assert [line.split(".")[0] for line in lines] == ["1", "2", "3", "4"]
    assert all("n0" in line for line in lines)
    assert out.exists()
    table = tmp_path / "top.safetensors"
    assert main(["top", "--data", str(tree), "--layer", "conv2", "-o", str(table)]) == 0
    assert capsys.readouterr().out == f"wrote {table}: the top 9 of 256 channels of conv2\n"
    assert zfnet.TopActivations.load(table)["conv2"].value.shape == (256, 9)


def test_train_and_eval(tree, tmp_path, capsys):
    config = tmp_path / "run.yaml"
    config.write_text(
        json.dumps(
            {
                "model": {"norm": "batch", "channels": [4] * 5, "fc_units": 8, "size": 64},
                "optim": {"batch": 8},
                "stages": [{"epochs": 9, "size": 64, "side": 73}],
            }
        )
    )
    out = tmp_path / "run"
    arguments = [
        "train",
        str(config),
        "--data",
        str(tree),
        "--out",
        str(out),
        "--set",
        "stages=[{epochs: 2, size: 64, side: 73}]",
    ]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "images/s" in captured.err
    assert "accuracy" in captured.err
    names = ("model.safetensors", "log.jsonl", "state.safetensors")
    assert captured.out == "".join(f"wrote {out / name}\n" for name in names)
    assert all((out / name).exists() for name in names)
    assert len((out / "log.jsonl").read_text().splitlines()) == 2
    assert main(arguments) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["eval", "--model", str(out / "model.safetensors"), "--data", str(tree)]) == 0
    assert "9 images, one center crop of 64 pixels" in capsys.readouterr().out


def test_skip_unreadable_ignores_broken_files(tree, tmp_path, capsys):
    (tree / "val" / "n01440764" / "broken.JPEG").write_bytes(b"")
    model = zfnet.zfnet(3, channels=(4,) * 5, fc_units=8, size=64)
    model.wnids = ["n01440764", "n02088094", "n03000000"]
    zfnet.save(model, tmp_path / "m.safetensors")
    arguments = ["eval", "--model", str(tmp_path / "m.safetensors"), "--data", str(tree)]
    assert main(arguments) == 2
    assert "broken.JPEG" in capsys.readouterr().err
    assert main([*arguments, "--skip-unreadable"]) == 0
    assert "9 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("project {photo} --layer conv9", "no layer 'conv9'; the network has conv1, conv2"), ("project {photo} --channel 256", "conv5 has channels 0 to 255, got --channel 256"),
        ("project {photo} --channel 1 --position 13 0", "conv5 has rows 0 to 12"), ("project nowhere.jpg", "nowhere.jpg: no such file"),
        ("project {photo} --model vgg", "no bundled network 'vgg'"), ("project {photo} --layer pool1 --channel 0", "no features of its own"),
        ("occlude {photo} --target hond", "no class 'hond'"),
        ("occlude {photo} --size 8 --stride 16", "stride of 16"), ("train none.yaml", "none.yaml: No such file"), ("train {config}", "add --data PATH"),
        ("train {config} --set optim.speed=1", "unknown option optim.speed"), ("train {config} --data nowhere", "nowhere/train: no such folder"),
        ("eval --data nowhere", "nowhere: no such folder"), ("top --layer conv6", "no layer 'conv6'"), ("top -k 0", "-k must be at least 1"),
        ("project {photo} --channel 1 -o {photo}/x.png", "cannot be written"), ("project {photo} --device warp", "--device warp is not available; available: auto, cpu"),
        ("explain {photo} --device cuda:99", "--device cuda:99 is not available"), ("describe --arch zfnet --weights random", "--weights cannot be used with --arch"),
        ("describe --model torchvision:resnet18 --weights none.pth", "none.pth: no such file"), ("describe --weights random", "imagenet65k includes its weights"),
        ("project {photo} --channel 1 -o out.xyz", "cannot be written"),
        ("occlude {photo} --target crane", "use a WordNet id: n02012849, n03126707"), ("project {photo} -o {photo}", "would overwrite the image"),
        ("explain {photo} --target cat", "no class 'cat'; choose from tiger cat, Persian cat"), ("describe --arch zfnet --model imagenet65k", "--model cannot be used with --arch"),
        ("describe --model resnet18", "did you mean torchvision:resnet18?"), ("explain {photo} --weights random", "imagenet65k includes its weights"),
        ("explain {photo} --model torchvision:resnet18 --weights none.pth", "none.pth: no such file"),
        ("top --skip-unreadable", "--skip-unreadable cannot be used with the sample photographs"), ("top --channel 1 -o t.safetensors", "--channel cannot be used with -o t.safetensors"),
        ("train {config} --data {tree} --resume --init imagenet65k", "--init cannot be used with --resume"), ("train {config} --data {tree} --resume --dry-run", "--dry-run cannot be used with --resume"),
        ("train {config} --data {tree} --set data.kind=scenes", "--data cannot be used with data.kind scenes"),
        ("train {config} --skip-unreadable --set data.kind=digits", "--skip-unreadable cannot be used with data.kind digits"),
        ("explain {photo} --target hond", "no class 'hond'"), ("explain nowhere.jpg", "nowhere.jpg: no such file"),
        ("explain {photo} --target tabby -o {photo}", "would overwrite the image"), ("explain {photo} -o out.xyz", "cannot be written"),
        ("explain {photo} --method cam --model {without_head}", "use grad_cam"), ("explain {photo} --model vgg", "no bundled network 'vgg'"),
        ("occlude {photo} -o .", "is a folder"), ("train {config} --data {tree} --resume --out nothing", "no run to resume"),
        ("train {photo}", "not valid YAML"), ("train {config} --data nowhere --set optim.batch=0", "optim.batch must be at least 1, got 0"),
        ("train {config} --data {tree} --set model.channels=[1,2]", "channels must have 3 numbers"), ("top --channel 9999", "conv5 has channels 0 to 255"),
    ],
)  # fmt: skip
def test_invalid_input_is_reported_on_one_line_with_exit_status_2(
    arguments, message, photo, tree, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text("name: run")
    without_head = tmp_path / "without_head.safetensors"
    if "{without_head}" in arguments:
        zfnet.save(zfnet.zfnet(3, channels=(4,) * 5, fc_units=8, size=64), without_head)
    assert (
        main(
            arguments.format(
                photo=photo, config=tmp_path / "run.yaml", tree=tree, without_head=without_head
            ).split()
        )
        == 2
    )
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("zfnet ")]
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["project"],
        ["project", "x.jpg", "--channel", "abc"],
        ["explain", "x.jpg", "--method", "gradcam"],
        ["fly"],
        [],
    ],
)
def test_usage_errors_are_reported_on_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    [
        "project {photo}",
        "occlude {photo}",
        "explain {photo}",
        "video {folder} -o v.gif",
        "top",
        "eval --data {tree}",
    ],
)
def test_network_with_one_input_channel_is_rejected(
    command, photo, tree, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    zfnet.save(
        zfnet.zfnet(3, channels=(4,) * 5, fc_units=8, size=64, in_channels=1),
        tmp_path / "gray.safetensors",
    )
    folder = photo.removesuffix("/cat.png")
    assert (
        main(
            f"{command} --model gray.safetensors".format(
                photo=photo, folder=folder, tree=tree
            ).split()
        )
        == 2
    )
    assert (
        "gray.safetensors takes images with 1 channel(s); this command needs 3"
        in capsys.readouterr().err
    )


def test_images_are_resized_to_the_size_of_the_network(scenes_run, photo, tmp_path, capsys):
    model = str(scenes_run / "model.safetensors")
    assert (
        main(
            ["project", photo, "--model", model, "--layer", "conv2", "-o", str(tmp_path / "p.png")]
        )
        == 0
    )
    assert "receptive field" in capsys.readouterr().out
    assert (
        main(["occlude", photo, "--model", model, "--stride", "16", "-o", str(tmp_path / "o")]) == 0
    )
    assert (tmp_path / "o").read_bytes().startswith(b"\x89PNG")
    assert (
        main(
            ["top", "--model", model, "--layer", "conv2", "-k", "2", "-o", str(tmp_path / "t.png")]
        )
        == 0
    )


def test_class_without_validation_images_is_reported_before_decoding(
    tree, tmp_path, capsys, monkeypatch
):
    (tmp_path / "run.yaml").write_text("stages: [{epochs: 1, size: 64, side: 73}]")
    shutil.rmtree(tree / "val" / "n03000000")
    monkeypatch.setattr("zfnet.cli.train.load_folder", lambda *a, **k: pytest.fail("decoded"))
    assert (
        main(
            [
                "train",
                str(tmp_path / "run.yaml"),
                "--data",
                str(tree),
                "--out",
                str(tmp_path / "run"),
            ]
        )
        == 2
    )
    assert capsys.readouterr().err == "zfnet train: 1 classes have no folder in val/: n03000000\n"


def test_training_may_start_at_a_lower_resolution(tree, tmp_path):
    settings = (
        "model.size=96",
        "model.channels=[4, 4, 4, 4, 4]",
        "model.fc_units=8",
        "optim.batch=8",
        "precision=float32",
        "snapshots=[]",
    )
    stages = "stages=[{epochs: 1, size: 64, side: 73}, {epochs: 1, size: 96, side: 110}]"
    options = [f"--set={key}" for key in (*settings, stages)]
    config = str(ROOT / "configs" / "imagenet65k.yaml")
    assert (
        main(["train", config, "--data", str(tree), "--out", str(tmp_path / "run"), *options]) == 0
    )
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["size"] for line in log] == [64, 96]
    assert zfnet.load(tmp_path / "run" / "model.safetensors").size == 96


def test_train_reads_digits_from_the_data_option(tmp_path, capsys):
    from tests.data.test_digits import write_mnist

    settings = [
        f"--set={key}" for key in ("optim.batch=10", "stages=[{epochs: 1, size: 28, side: 32}]")
    ]
    arguments = [
        "train",
        str(ROOT / "configs" / "mnist.yaml"),
        *settings,
        "--out",
        str(tmp_path / "run"),
        "--data",
    ]
    assert main([*arguments, str(tmp_path / "nowhere")]) == 2
    assert "MNIST is missing" in capsys.readouterr().err
    assert main([*arguments, str(write_mnist(tmp_path))]) == 0
    model = zfnet.load(tmp_path / "run" / "model.safetensors")
    assert (model.arch, model.classes, model.info["training_images"]) == (
        "mnist",
        list("0123456789"),
        30,
    )


def test_data_is_a_path_even_if_it_looks_like_a_number(tree, tmp_path, capsys):
    for name in ("my set #2", "2012", "null", "photos: new"):
        renamed = tree = tree.rename(tmp_path / name)
        settings = [
            f"--set={key}"
            for key in (
                "model.channels=[4, 4, 4, 4, 4]",
                "model.fc_units=8",
                "optim.batch=8",
                "precision=float32",
            )
        ]
        arguments = [
            "train",
            str(ROOT / "configs" / "imagenet65k.yaml"),
            "--data",
            str(renamed),
            "--dry-run",
            *settings,
        ]
        assert main(arguments) == 0
        printed = capsys.readouterr().out
        assert name in printed
        assert "the run would be written to runs/imagenet65k" in printed


def test_only_scenes_have_images_below_the_size_of_the_network(tmp_path, capsys):
    settings = [
        f"--set={key}"
        for key in (
            "data.scenes=16",
            "model.channels=[4, 4, 4, 4, 4]",
            "model.fc_units=8",
            "optim.batch=8",
        )
    ]
    stages = "--set=stages=[{epochs: 1, size: 64, side: 73}]"
    scenes = str(ROOT / "configs" / "scenes.yaml")
    assert (
        main(
            [
                "train",
                scenes,
                *settings,
                "--set=model.size=96",
                stages,
                "--out",
                str(tmp_path / "a"),
            ]
        )
        == 0
    )
    digits = [
        "train",
        str(ROOT / "configs" / "mnist.yaml"),
        "--set=stages=[{epochs: 1, size: 20, side: 24}]",
    ]
    assert main([*digits, "--out", str(tmp_path / "b")]) == 2
    assert "side at least 28" in capsys.readouterr().err


def test_class_names_may_contain_dollar_signs(photo, tmp_path):
    model = zfnet.zfnet(2, channels=(4,) * 5, fc_units=8, size=64)
    model.classes = ["a$b_{$c", "$"]
    zfnet.save(model, tmp_path / "m.safetensors")
    for command in (
        ["explain", photo, "--target", "0"],
        ["occlude", photo, "--target", "1", "--size", "16", "--stride", "16"],
    ):
        assert (
            main(
                [
                    *command,
                    "--model",
                    str(tmp_path / "m.safetensors"),
                    "-o",
                    str(tmp_path / "o.png"),
                ]
            )
            == 0
        )


@pytest.mark.parametrize(
    "environment", [{"WORLD_SIZE": "2", "RANK": "0"}, {"RANK": ""}, {"WORLD_SIZE": "two"}]
)
def test_incomplete_torchrun_environment_is_rejected(
    environment, photo, monkeypatch, capsys, tmp_path
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["explain", photo, "-o", str(tmp_path / "o.png")]) == 2
    assert "torchrun" in capsys.readouterr().err


def test_commands_disable_tf32(monkeypatch):
    """TF32 changes pooling switches. `main(arguments)` does not change the setting of its caller."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(
        importlib.import_module("zfnet.cli.execute"), "keep_freed_memory", lambda: None
    )
    assert main(["describe"]) == 0
    assert torch.backends.cudnn.allow_tf32
    monkeypatch.setattr(sys, "argv", ["zfnet", "describe"])
    assert main() == 0
    assert not torch.backends.cudnn.allow_tf32
