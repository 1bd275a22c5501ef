"""The commands on torchvision's networks, with random weights."""

import pytest
import torch
from PIL import Image

import zfnet
from zfnet.cli import main
from zfnet.networks import load_network


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "cat.png"
    zfnet.photograph("cat").save(path)
    return str(path)


def random(name):
    return ["--model", f"torchvision:{name}", "--weights", "random"]


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_explain_and_occlude(name, photo, tmp_path, capsys):
    out = tmp_path / "out.png"
    assert main(["explain", photo, "--target", "tabby", *random(name), "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    with torch.no_grad():
        logits = load_network(f"torchvision:{name}", "random")(zfnet.preprocess(photo))[0]
    assert (
        f"grad_cam for tabby: probability {logits.softmax(0)[281]:.3f}, logit {logits[281]:.2f}"
        in printed
    )
    assert "predicted class: " in printed
    assert f"wrote {out}" in printed
    assert (
        main(["occlude", photo, "--size", "112", "--stride", "112", *random(name), "-o", str(out)])
        == 0
    )
    assert f"wrote {out}" in capsys.readouterr().out


def test_project_and_top_on_a_chain(photo, tree, tmp_path, capsys):
    out = tmp_path / "out.png"
    options = ["--layer", "conv2", "--channel", "3", *random("alexnet"), "-o", str(out)]
    assert main(["project", photo, *options]) == 0
    assert "conv2, channel 3" in capsys.readouterr().out
    assert main(["top", "--data", str(tree), "-k", "2", *options]) == 0
    wrote, *ranks = capsys.readouterr().out.splitlines()
    assert wrote == f"wrote {out}"
    assert len(ranks) == 2


def test_a_layer_of_a_network_with_branches_is_projected(photo, tmp_path, capsys):
    out = tmp_path / "out.png"
    layer = ["--layer", "layer2.0.conv2"]
    assert main(["project", photo, *random("resnet18"), *layer, "-o", str(out)]) == 0
    assert out.exists()


def test_top_and_project_choose_a_layer_that_the_network_has(photo, tree, tmp_path, capsys):
    """resnet18 has no conv5: its last maps before the logits are those of its last block."""
    out = tmp_path / "out.png"
    assert main(["project", photo, *random("resnet18"), "-o", str(out)]) == 0
    assert capsys.readouterr().out.startswith("layer4, channel ")
    table = tmp_path / "top.safetensors"
    options = ["--data", str(tree), "-k", "1", *random("resnet18"), "-o", str(table)]
    assert main(["top", *options]) == 0
    assert "the top 1 of 512 channels of layer4" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["project", "top"])
def test_a_default_layer_that_cannot_be_projected_says_why(command, photo, tmp_path, capsys):
    out = tmp_path / "out.png"
    image = [photo] if command == "project" else []
    assert main([command, *image, *random("efficientnet_b0"), "-o", str(out)]) == 2
    error = capsys.readouterr().err
    assert ("SiLU" if command == "project" else "features cannot be projected") in error
    assert len(error.splitlines()) == 1
    assert not out.exists()


def test_a_network_without_relus_cannot_be_projected(photo, tmp_path, capsys):
    layer = ["--layer", "features.3"]
    arguments = ["project", photo, *random("efficientnet_b0"), *layer]
    assert main([*arguments, "-o", str(tmp_path / "out.png")]) == 2
    error = capsys.readouterr().err
    assert "SiLU" in error
    assert len(error.splitlines()) == 1


def test_eval_maps_folders_by_wordnet_id(tree, capsys):
    (tree / "val" / "n03000000").rename(tree / "val" / "n02123045")
    assert main(["eval", "--data", str(tree), *random("squeezenet1_1")]) == 0
    assert "9 images, one center crop of 224 pixels, float32" in capsys.readouterr().out
    (tree / "val" / "n02123045").rename(tree / "val" / "tabby")
    assert main(["eval", "--data", str(tree), *random("squeezenet1_1")]) == 2
    assert "the network has no output for 1 class folders: tabby" in capsys.readouterr().err


def test_video_of_a_torchvision_network(tmp_path, capsys):
    frames = [Image.new("RGB", (64, 64), (40 * i, 90, 200 - 40 * i)) for i in range(3)]
    frames[0].save(tmp_path / "in.gif", save_all=True, append_images=frames[1:], duration=50)
    out = tmp_path / "out.gif"
    arguments = ["video", str(tmp_path / "in.gif"), "--method", "saliency", "--target", "tabby"]
    assert main([*arguments, *random("squeezenet1_1"), "-o", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"wrote {out}: 3 frames, saliency for tabby")
